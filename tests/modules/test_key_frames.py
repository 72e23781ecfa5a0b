"""Key frames: the greedy choice against sets in Python, frames by hand, what is refused."""

from dataclasses import replace

import pytest
import torch

from ei2_modules.atlas.atlas import Atlas, Layer
from ei2_modules.atlas.crops import Crops
from ei2_modules.atlas.key_frames import KeyFrames, added, checked, chosen, named, shown
from ei2_modules.atlas.maps import Maps
from ei2_modules.atlas.texture import Box
from ei2_modules.errors import EI2Error


def slow_choice(sets, most, least):
    """Sets of texels, one by one."""
    everything, covered, frames = set().union(*sets), set(), []
    while len(frames) < most:
        gains = [len(texels - covered) for texels in sets]
        best = gains.index(max(gains))
        if frames and (gains[best] < least * len(everything) or not gains[best]):
            break
        frames.append((best, gains[best] / len(everything)))
        covered |= sets[best]
    return frames


@pytest.mark.parametrize("most", [1, 3, 9])
@pytest.mark.parametrize("least", [0.0, 0.03, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_the_greedy_one(seed, least, most):
    seen = torch.rand(9, 200, generator=torch.Generator().manual_seed(seed)) < torch.linspace(0.02, 0.5, 9)[:, None]
    sets = [set(one.nonzero().flatten().tolist()) for one in seen]
    found = chosen(seen, most, least)
    assert [t for t, _ in found] == [t for t, _ in slow_choice(sets, most, least)]
    assert [s for _, s in found] == pytest.approx([s for _, s in slow_choice(sets, most, least)])
    assert added(seen, [t for t, _ in found]) == found


def test_frames_that_all_show_the_same_need_one():
    seen = torch.ones(5, 10, dtype=torch.bool)
    assert chosen(seen, 5) == [(0, 1.0)]
    assert chosen(seen, 5, 0.0) == [(0, 1.0)]


def test_a_layer_that_no_frame_shows_is_refused():
    with pytest.raises(EI2Error, match="No frame shows this layer"):
        chosen(torch.zeros(3, 4, dtype=torch.bool), 2)


def half_seen(frames=3, size=(8, 12)):
    """A foreground that frame 0 shows in its left half, frame 1 nowhere, frame 2 everywhere; the maps are the same."""
    box = Box(-1.0, -2 / 3, 1.0, 2 / 3, *size)
    still = Maps(torch.eye(3)[None, :2].repeat(frames, 1, 1))
    layer = Layer(still, box, torch.rand(3, *size), torch.ones(size, dtype=torch.bool))
    alpha = torch.zeros(frames, 1, *size, dtype=torch.uint8)
    alpha[0, :, :, :6], alpha[2] = 255, 255
    return Atlas(size, (layer, layer), (alpha,))


def test_what_frames_show():
    atlas = half_seen()
    seen = shown(atlas, 0).view(3, 8, 12)
    assert seen[0, :, :6].all() and not seen[0, :, 6:].any() and not seen[1].any() and seen[2].all()
    assert torch.equal(shown(atlas, 1), ~shown(atlas, 0))
    assert chosen(shown(atlas, 0), 3) == [(2, 1.0)]


@pytest.mark.parametrize("text", ["2, 0", "2 0", " 2;0 ,", "02,0"])
def test_by_hand_in_any_spelling_and_in_this_order(text):
    assert named(text, half_seen(), 0) == KeyFrames(0, (2, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0, 3", "'0, 3': 3 cannot be one. Give numbers from 0 to 2"),
        ("-1", "-1 cannot be one"),
        ("1.5, x", "1.5, x cannot be one"),
        (",", "nothing cannot be one"),
        ("2, 0, 2", "2 is there more than once"),
        ("0, 1", "not seen in frame 1, counted from 0"),
    ],
)
def test_what_is_no_key_frame_is_refused(text, message):
    with pytest.raises(EI2Error, match=message):
        named(text, half_seen(), 0)


OTHER = "chosen for another atlas: this one has 3 frames and 2 layers"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (KeyFrames(2, (0,)), OTHER),
        (KeyFrames(0, (0, 3)), OTHER),
        (KeyFrames(0, (0, 1)), "not seen in frame 1, counted from 0"),
    ],
)
def test_those_of_another_atlas_are_refused(keys, message):
    assert checked(KeyFrames(1, (0, 1)), half_seen())
    with pytest.raises(EI2Error, match=message):
        checked(keys, half_seen())


def test_a_faint_layer_is_not_seen():
    """As for cropping, which has to find something in each key frame."""
    atlas = half_seen()
    faint = replace(atlas, alphas=(torch.where(atlas.alphas[0] == 255, 100, 0).byte(),))
    assert not shown(faint, 0).any() and shown(atlas, 0).any()


@pytest.mark.parametrize("short_side", [64, 192])
def test_windows_hold_the_layer_and_have_one_size(short_side):
    seen = torch.zeros(3, 1, 48, 96)
    seen[0, 0, 10:20, 3:13], seen[1, 0, 40:48, 60:96], seen[2] = 1, 1, 0
    seen[2, 0, 0, 0] = 1
    crops = Crops.around(seen, short_side)
    assert crops.size == (18, 44) and min(crops.edited) == short_side
    assert all(side % 64 == 0 for side in crops.edited) and crops.edited[1] == round(44 / 18 * short_side / 64) * 64
    for k, one in enumerate(seen):
        top, left = crops.corners[k]
        assert one[:, top : top + 18, left : left + 44].sum() == one.sum()
        assert 0 <= top <= 48 - 18 and 0 <= left <= 96 - 44
        assert crops.cut(k, one.expand(3, -1, -1)).shape == (1, 3, *crops.edited)


def test_a_window_comes_back_to_its_place():
    frame = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 12), (48, 96), mode="bicubic").clamp(0, 1)[0]
    seen = torch.zeros(1, 1, 48, 96)
    seen[..., 10:30, 50:80] = 1
    crops = Crops.around(seen, 256)
    back = crops.pasted(0, torch.zeros_like(frame), crops.cut(0, frame))
    (top, left), (h, w) = crops.corners[0], crops.size
    inside = (slice(None), slice(top + 2, top + h - 2), slice(left + 2, left + w - 2))
    assert (back[inside] - frame[inside]).abs().max() < 0.03 and not back[:, :, : left - 1].any()
