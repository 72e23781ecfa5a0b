"""Where words are seen, as pictures: a column for every word, a row for every block of the UNet."""

import itertools

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..plots import FONT, INK
from ..side_by_side import readable
from .looking import LookingEverywhere, relative

CELL, HEAD, SIDE = 96, 18, 76  # px
DARK = 0.25  # how much of the clip is left where a word is not seen at all


def word_pictures(found: LookingEverywhere, blocks: list[str], images: Tensor | None) -> Tensor:
    """IMAGE, one for every frame: the maps over the clip's own frames (n, h, w, 3), or in grey."""
    words, aspect = list(found.words), next(iter(found.sums.values())).shape[-2:]
    height = max(1, round(CELL * aspect[0] / aspect[1]))
    behind = torch.ones(found.frames, height, CELL, 3)
    if images is not None:
        frames = [Image.fromarray((frame * 255).byte().numpy()).resize((CELL, height)) for frame in images.cpu()]
        behind = torch.stack([torch.from_numpy(np.array(frame)).float() / 255 for frame in frames])
    empty = _lettered(blocks, words, height)
    pictures = empty.repeat(found.frames, 1, 1, 1)
    for row, column in itertools.product(range(len(blocks)), range(len(words))):
        seen = relative(found.seen(blocks[row], words[column], (height, CELL)))[..., None].cpu()
        y, x = HEAD + height * row, SIDE + CELL * column
        lit = DARK + (1 - DARK) * seen if images is not None else seen
        pictures[:, y : y + height, x : x + CELL] = behind * lit
    return pictures


def _lettered(blocks: list[str], words: list[str], height: int) -> Tensor:
    """(1, h, w, 3), the words above and the blocks at the left."""
    picture = Image.new("RGB", (SIDE + CELL * len(words), HEAD + height * len(blocks)), "white")
    pen = ImageDraw.Draw(picture)
    for i, word in enumerate(words):
        shown, font = readable(word, FONT.size)
        pen.text((SIDE + CELL * i + 4, 1), shown, INK, font)
    for i, block in enumerate(blocks):
        pen.text((4, HEAD + height * (i + 0.5)), block, INK, FONT, anchor="lm")
    return torch.from_numpy(np.array(picture)).float()[None] / 255
