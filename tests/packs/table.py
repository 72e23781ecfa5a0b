"""The page docs/packs.md: what was run, and how it went."""

HEAD = """# Beside other packs

What must hold beside other packs, tried with the packs themselves and models of random weights. To repeat it with packs
of yours (nothing is fetched): `python dev.py test --packs FOLDER --out docs/packs.md`, where FOLDER is one such as
ComfyUI's `custom_nodes`. `COMFYUI_PATH` chooses the ComfyUI; what was run on another stays in the table.

{system}

| pack | version | ComfyUI | case | result |
|---|---|---|---|---|
"""


def page(rows: list[tuple[str, ...]], system: str, before: str = "") -> str:
    """before: an earlier page, whose rows of other packs, versions and ComfyUIs are kept."""
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    again = {_run(line) for line in lines}
    kept = [line for line in before.partition("|---|")[2].splitlines()[1:] if _run(line) not in again]
    return HEAD.format(system=system) + "\n".join(sorted(kept + lines, key=_run)) + "\n"


def _run(line: str) -> tuple[str, ...]:
    """Pack, version and ComfyUI of a row."""
    return tuple(line.split(" | ")[:3])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
