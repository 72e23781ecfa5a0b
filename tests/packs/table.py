"""The page docs/packs.md: what was run, and how it went."""

HEAD = """# Beside other packs

What must hold beside other packs, tried with the packs themselves and models of random weights. To repeat it with packs
of yours (nothing is fetched): `python dev.py test --packs FOLDER --out docs/packs.md`, where FOLDER is one such as
ComfyUI's `custom_nodes`. `COMFYUI_PATH` chooses the ComfyUI.

{system}

| pack | version | ComfyUI | case | result |
|---|---|---|---|---|
"""


def page(rows: list[tuple[str, ...]], system: str) -> str:
    lines = ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    return HEAD.format(system=system) + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
