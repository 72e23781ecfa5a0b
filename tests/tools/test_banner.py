"""The pictures that the registry shows, cut out of the demo's."""

import numpy as np
import pytest
from PIL import Image

from tools.demo import banner


def test_frames_are_cut_at_their_borders():
    sheet = Image.open(banner.DOCS / "demo.png").convert("RGB")
    cell = banner.CELL + banner.GAP
    assert (sheet.width - banner.LEFT + banner.GAP) % cell == (sheet.height + banner.GAP) % cell == 0
    for row in (banner.SOURCE, banner.COLOUR, banner.SHAPE, banner.BACKGROUND):
        for column in range(7):
            frame = np.asarray(banner.frame(sheet, row, column))
            assert frame[[0, 0, -1, -1], [0, -1, 0, -1]].min(1).max() < 128, "white is the sheet, not a frame"


@pytest.mark.parametrize("name", ["icon.png", "banner.png"])
def test_they_are_of_the_demo_that_is_there(name):
    kept, drawn = Image.open(banner.DOCS / name).convert("RGB"), banner.drawn()[name]
    assert kept.size == drawn.size
    difference = np.abs(np.asarray(kept, dtype=float) - np.asarray(drawn, dtype=float))
    assert difference.mean() < 0.5, "python -m tools.demo.banner draws them anew"
    assert np.allclose(drawn.getpixel((0, 0)), drawn.getpixel((drawn.width - 1, drawn.height - 1)))
