"""What holds beside other packs, tried with the packs themselves: `python dev.py test --packs FOLDER`.

FOLDER holds packs as ComfyUI's custom_nodes does. Nothing is fetched. Every pack gets a process of its own, in which
ComfyUI's own loader imports it beside ours: some change the host for good. A file of `cases` is named after its pack;
cases/any.py is for every pack, known or not. A case says in its docstring what must hold.
"""
