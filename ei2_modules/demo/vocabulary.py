"""The words the miniature model knows, and how a caption becomes numbers."""

import re

import torch
from torch import Tensor

from ..errors import EI2Error

COLOURS = {
    "red": (0.86, 0.12, 0.12),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.97, 0.86, 0.15),
    "purple": (0.55, 0.15, 0.70),
    "orange": (0.97, 0.52, 0.08),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.06),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
TEXTURES = ("plain", "striped", "dotted")  # of the object; "plain" is never said
STYLES = {"plain": "", "night": "at night", "pastel": "in pastel", "outline": "as an outline"}  # of the picture
PLACES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}
PAD, START = 0, 1
LENGTH = 24  # tokens of a caption, the start token among them
GLUE = "a an the on at in as and behind bar background moving small big night pastel outline"
WORDS = (
    "<pad>",
    "<start>",
    *GLUE.split(),
    *COLOURS,
    *SHAPES,
    *TEXTURES[1:],
    *PLACES,
)


def tokenize(caption: str) -> list[int]:
    """Token numbers of a caption, the start token first, without padding. Case and punctuation do not matter.

    Raises EI2Error that lists the known words if one is not known, or if there are too many.
    """
    words = re.findall(r"[^\s.,;!?]+", caption.lower())
    unknown = sorted({word for word in words if word not in WORDS[START + 1 :]})
    if unknown:
        raise EI2Error(
            f"The miniature model does not know {', '.join(repr(word) for word in unknown)}. It knows only: "
            f"{', '.join(sorted(WORDS[START + 1 :]))}. Write for example: a small striped red circle on a blue "
            "background at night. For any other words, load a Stable Diffusion 1.x checkpoint."
        )
    if len(words) >= LENGTH:
        raise EI2Error(f"The caption has {len(words)} words, but the miniature model reads {LENGTH - 1}: shorten it.")
    return [START, *(WORDS.index(word) for word in words)]


def batch(captions: list[str]) -> Tensor:
    """(n, LENGTH) token numbers, padded."""
    rows = [tokenize(caption) for caption in captions]
    return torch.tensor([row + [PAD] * (LENGTH - len(row)) for row in rows])
