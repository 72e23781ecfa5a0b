"""One frame's object carried through a clip: where it is drawn, which frame is taken, and the motion in words."""

import pytest
import torch
import torch.nn.functional as F

from ei2_modules.motion import carry, object_motion
from ei2_modules.motion.filters import grown

from .carrying import SIZE, WAY, clip_of, turn


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ([turn(0), turn(-1e-3)], "turns by 0 degrees"),
        ([turn(5), turn(-20, 0.5)], "turns by -25 degrees"),
        ([turn(angle) for angle in (0, 100, 200, 300, 400)], "turns by 400 degrees"),
        ([turn(0, 1, 3, 0), turn(0, 0.25, 9, 9)], "becomes 0.25 times"),
    ],
)
def test_moves_in_words(moves, words):
    found = [moves[0] @ torch.linalg.inv(move) for move in moves]
    assert words in object_motion.described(torch.stack(found))


def test_every_frame_shows_the_key_frames_object():
    """An edit that got every frame's colours wrong but one."""
    frames, masks, flow = clip_of(WAY)
    edited = frames * torch.tensor([0.3, 0.9, 0.5, 1.0]).view(4, 1, 1, 1)
    motions = object_motion.motions(frames, masks, flow)
    made = carry.carried(edited, grown(masks, 0.0), motions, 3)
    core = -F.max_pool2d(-masks, 7, 1, 3) > 0.5
    far = F.max_pool2d(masks, 5, 1, 2) < 0.5
    for t in range(4):
        inside, outside = (where[t].expand(3, -1, -1) for where in (core, far))
        assert (made[t] - frames[t])[inside].abs().mean() < 0.03
        assert t == 3 or (edited[t] - frames[t])[inside].abs().mean() > 0.04
        assert torch.equal(made[t][outside], edited[t][outside])
    assert torch.equal(made[3], edited[3])


def test_a_frame_without_the_object_stays_and_grow_reaches_further():
    frames, masks, flow = clip_of(WAY)
    motions = object_motion.motions(frames, masks, flow)
    masks[2] = 0
    edited = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    changed = [
        (carry.carried(edited, grown(masks, grow), motions, 0) != edited).flatten(1).sum(1) for grow in (0.0, 0.1)
    ]
    assert changed[0][2] == changed[1][2] == 0
    assert all(changed[1][t] > changed[0][t] > 0 for t in (1, 3))


@pytest.mark.parametrize("by", [0.0, 0.01, 0.05, 0.2])
def test_a_mask_grows_to_all_sides_alike(by):
    masks = 0.9 * clip_of(WAY)[1][..., 8:-8]
    reach = max(1, round(by * SIZE)) if by else 0
    square = F.max_pool2d((masks > 0.5).float(), 2 * reach + 1, 1, reach)
    wide = grown(masks, by)
    assert torch.equal(wide > 0.99, -F.max_pool2d(-square, 3, 1, 1) > 0.5)
    assert torch.equal(wide > 0.01, F.max_pool2d(square, 3, 1, 1) > 0.5)


def test_smaller_frames_are_carried_to_the_same_places(monkeypatch):
    frames, masks, _ = clip_of(WAY)
    given = F.interpolate(frames, (SIZE, SIZE - 8), mode="bilinear"), grown(masks, 0.05)[..., 4:-4]
    motions = torch.stack([turn(60 * t) for t in range(4)])
    assert torch.equal(carry.smaller(*given, motions)[0], given[0]), "small as it is"
    monkeypatch.setattr(carry, "COMPARED", SIZE // 2)
    small = carry.smaller(*given, motions)
    assert small[0].shape[-2:] == small[1].shape[-2:] == (SIZE // 2, SIZE // 2 - 4)
    expected = F.avg_pool2d(carry.carried(*given, motions, 0), 2)
    assert (carry.carried(*small, 0) - expected).abs().mean() < 0.01


@pytest.mark.parametrize("odd", [0, 2, 3])
@pytest.mark.parametrize("compared", [128, 16])
def test_the_most_typical_frame_is_not_the_odd_one(monkeypatch, odd, compared):
    monkeypatch.setattr(carry, "COMPARED", compared)
    frames, masks, flow = clip_of(WAY)
    edited = frames.clone()
    edited[odd] = 1 - edited[odd]
    assert carry.most_typical(edited, grown(masks, 0.0), object_motion.motions(frames, masks, flow)) != odd


def test_the_most_typical_frame_shows_the_object():
    frames, masks, flow = clip_of(WAY)
    motions = object_motion.motions(frames, masks, flow)
    masks[0] = 0
    assert carry.most_typical(frames, grown(masks, 0.0), motions) != 0
