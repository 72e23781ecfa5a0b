"""Attentions that are not the same everywhere in the UNet: which kind of frame.py stands at which place.

A place is one transformer of the UNet with all of its blocks, under the host's key: ("input", 1), ("middle", 0), ...
"""

from collections.abc import Callable, Mapping

from .frame import ATTENTIONS

Place = tuple[str, int]
Layout = Callable[[Mapping[Place, int]], dict[Place, str]]  # channels by place, from input to output -> kind by place
WIDE = 640  # channels: SD1.5's second level


def dense_in_three(widths: Mapping[Place, int]) -> dict[Place, str]:
    """vid2vid-zero: SCA, but dense at the first place of the way down, in the middle and at the first of the way up.

    SD1.5: input 1 (320 channels), middle, output 3 (1280), which are down_blocks[0].attentions[0], mid_block and
    up_blocks[1].attentions[0] of the released code. By the same rule SDXL: input 4, middle, output 0.
    """
    firsts = {part: (part, number) for part, number in reversed(widths)}
    return {place: "dense" if firsts[place[0]] == place else "SCA" for place in widths}


def middle_where_wide(widths: Mapping[Place, int]) -> dict[Place, str]:
    """FateZero: the middle frame at 640 channels and more, each frame by itself below (SD1.5: at the first level).

    In a narrower UNet, from twice its least on: what 640 is to SD1.5.
    """
    least = min(WIDE, 2 * min(widths.values(), default=WIDE))
    return {place: "middle-frame" if width >= least else "per-frame" for place, width in widths.items()}


LAYOUTS: dict[str, Layout] = {"vid2vid-zero": dense_in_three, "FateZero": middle_where_wide}
ATTENTION_NAMES = (*ATTENTIONS, *LAYOUTS)


def crossing(attention: str, widths: Mapping[Place, int]) -> dict[Place, str]:
    """The places where frames see each other, and the kind of ATTENTIONS by which they do.

    attention: one of ATTENTION_NAMES. widths: channels of every place, from input to output.
    """
    kinds = LAYOUTS[attention](widths) if attention in LAYOUTS else dict.fromkeys(widths, attention)
    return {place: kind for place, kind in kinds.items() if ATTENTIONS[kind].crosses}


def pools(attention: str) -> bool:
    """Whether it uses r, and the anchors of a long clip."""
    return attention in ATTENTIONS and ATTENTIONS[attention].pools
