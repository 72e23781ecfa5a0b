"""One frame's object carried through a clip: the fitted motion, where it is drawn, and which frame is taken."""

import math

import pytest
import torch
import torch.nn.functional as F

from ei2_modules.motion import carry
from ei2_modules.motion.flow import Flow

SIZE = 40


def turn(degrees: float, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> torch.Tensor:
    """(3, 3) about the middle of the picture."""
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    middle = torch.tensor([SIZE / 2, SIZE / 2])
    matrix = torch.tensor([[a, -b], [b, a]])
    shift = middle + torch.tensor([dx, dy]) - matrix @ middle
    return torch.cat([torch.cat([matrix, shift[:, None]], 1), torch.tensor([[0.0, 0.0, 1.0]])])


MOVES = {
    "stands": turn(0),
    "shifted": turn(0, 1, 2.5, -1.25),
    "turned": turn(17),
    "larger": turn(0, 1.2),
    "all of it": turn(-9, 0.9, 1.5, 2.0),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
@pytest.mark.parametrize("outliers", [0, 12])
def test_a_similarity_is_found_again(move, outliers):
    generator = torch.Generator().manual_seed(0)
    points = SIZE * torch.rand(60, 2, generator=generator)
    targets = points @ move[:2, :2].T + move[:2, 2]
    targets[:outliers] += 15
    found = carry.robust_similarity(points, targets, 0.1 + torch.rand(60, generator=generator))
    assert torch.allclose(found, move[:2], atol=1e-3 if not outliers else 2e-2)
    if outliers:
        assert not torch.allclose(carry.similarity(points, targets, torch.ones(60)), move[:2], atol=0.5)


def test_one_point_is_shifted():
    found = carry.similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 1.0]]), torch.ones(1))
    assert torch.allclose(found, torch.tensor([[1.0, 0, 2], [0, 1, -3]]))


def clip_of(moves: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, Flow]:
    """(frames, masks, flow) of a spotted square: moves[t] takes the first frame's places to those of frame t.

    The flow is the object's inside its mask, and nonsense outside.
    """
    axis = torch.arange(SIZE).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    here = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    frames, masks, back = [], [], []
    for t, move in enumerate(moves):
        u, v = ((torch.linalg.inv(move) @ here)[:2] - SIZE / 2).view(2, SIZE, SIZE)
        mask = (2 * (9 - torch.maximum(u.abs(), v.abs()))).sigmoid()
        inside = mask > 0.5
        frames.append((mask * (0.5 + 0.5 * (u * 0.5).sin() * (v * 0.4).cos()) + (1 - mask) * 0.1).expand(3, -1, -1))
        masks.append(mask[None])
        if t:
            there = (moves[t - 1] @ torch.linalg.inv(move) @ here)[:2].view(2, SIZE, SIZE) - torch.stack([x, y])
            back.append(torch.where(inside, there, torch.full_like(there, 7.0)))
    back, agrees = torch.stack(back), torch.ones(len(moves) - 1, 1, SIZE, SIZE, dtype=torch.bool)
    return torch.stack(frames), torch.stack(masks), Flow(-back, back, agrees, agrees)


WAY = [turn(0), turn(6, 1.03, 1, 0), turn(12, 1.05, 2, 0.5), turn(20, 1.1, 3.5, 1)]


def test_motions_are_chained():
    frames, masks, flow = clip_of(WAY)
    found = carry.motions(frames, masks, flow)
    assert farthest(found, WAY) < 0.3
    assert "turns by 20 degrees (clockwise) and becomes 1.10 times as large" in carry.described(found)


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
    assert words in carry.described(torch.stack(found))


def farthest(found: torch.Tensor, way: list[torch.Tensor]) -> float:
    """Pixels that a corner of the object is off, in the worst frame."""
    corners = torch.tensor([[11.0, 11, 1], [29, 11, 1], [29, 29, 1], [11, 29, 1]]).T
    gaps = [(motion @ move @ corners - corners)[:2].norm(dim=0).max() for motion, move in zip(found, way, strict=True)]
    return max(gaps).item()


def test_one_mask_for_all_frames_says_nothing_of_motion():
    """A box that stands still around an object that moves: the pixels alone say how."""
    frames, masks, flow = clip_of(WAY)
    box = masks.amax(0, keepdim=True).expand_as(masks)
    assert farthest(carry.motions(frames, box, flow), WAY) < 1.0


def test_a_plain_disc_does_not_turn():
    axis = torch.arange(SIZE).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    masks = torch.stack(
        [(8 - ((x - 12 - 4 * t).square() + (y - 20).square()).sqrt()).sigmoid()[None] for t in range(5)]
    )
    nothing = torch.zeros(4, 2, SIZE, SIZE)
    flow = Flow(nothing, nothing, nothing[:, :1] > 0, nothing[:, :1] > 0)
    frames = 0.8 * masks.expand(-1, 3, -1, -1) + 0.001 * torch.rand(
        5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)
    )
    last = carry.motions(frames, masks, flow)[-1]
    assert torch.allclose(last[:2, :2], torch.eye(2), atol=0.02)


def test_over_a_gap_the_object_moves_as_its_mask():
    shifts = [turn(0, 1, 3.0 * t, 0) for t in range(4)]
    frames, masks, flow = clip_of(shifts)
    masks[1:3] = 0
    found = carry.motions(frames, masks, flow)
    assert torch.allclose(found[3], torch.linalg.inv(shifts[3]), atol=1e-4)
    assert torch.equal(found[1], torch.eye(3)) and torch.equal(found[2], torch.eye(3))


def test_every_frame_shows_the_key_frames_object():
    """An edit that got every frame's colours wrong but one."""
    frames, masks, flow = clip_of(WAY)
    edited = frames * torch.tensor([0.3, 0.9, 0.5, 1.0]).view(4, 1, 1, 1)
    motions = carry.motions(frames, masks, flow)
    made = carry.carried(edited, carry.grown(masks, 0.0), motions, 3)
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
    motions = carry.motions(frames, masks, flow)
    masks[2] = 0
    edited = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    changed = [
        (carry.carried(edited, carry.grown(masks, grow), motions, 0) != edited).flatten(1).sum(1) for grow in (0.0, 0.1)
    ]
    assert changed[0][2] == changed[1][2] == 0
    assert all(changed[1][t] > changed[0][t] > 0 for t in (1, 3))


@pytest.mark.parametrize("by", [0.0, 0.05, 0.2])
def test_a_mask_grows_to_all_sides_alike(by):
    masks = clip_of(WAY)[1] * 0.9
    reach = round(by * SIZE)
    square = F.max_pool2d((masks > 0.5).float(), 2 * reach + 1, 1, reach)
    wide = carry.grown(masks, by)
    assert torch.equal(wide > 0.99, -F.max_pool2d(-square, 3, 1, 1) > 0.5)
    assert torch.equal(wide > 0.01, F.max_pool2d(square, 3, 1, 1) > 0.5)


def test_smaller_frames_are_carried_to_the_same_places(monkeypatch):
    monkeypatch.setattr(carry, "COMPARED", SIZE // 2)
    frames, masks, _ = clip_of(WAY)
    given = F.interpolate(frames, (SIZE, SIZE - 8), mode="bilinear"), carry.grown(masks, 0.05)[..., 4:-4]
    motions = torch.linalg.inv(torch.stack([turn(7 * t, 1, 2 * t, -t) for t in range(4)]))
    small = carry.smaller(*given, motions)
    assert small[0].shape[-2:] == small[1].shape[-2:] == (SIZE // 2, SIZE // 2 - 4)
    expected = F.avg_pool2d(carry.carried(*given, motions, 0), 2)
    assert (carry.carried(*small, 0) - expected).abs().mean() < 0.005


@pytest.mark.parametrize("odd", [0, 2, 3])
@pytest.mark.parametrize("compared", [128, 16])
def test_the_most_typical_frame_is_not_the_odd_one(monkeypatch, odd, compared):
    monkeypatch.setattr(carry, "COMPARED", compared)
    frames, masks, flow = clip_of(WAY)
    edited = frames.clone()
    edited[odd] = 1 - edited[odd]
    assert carry.most_typical(edited, carry.grown(masks, 0.0), carry.motions(frames, masks, flow)) != odd


def test_the_most_typical_frame_shows_the_object():
    frames, masks, flow = clip_of(WAY)
    motions = carry.motions(frames, masks, flow)
    masks[0] = 0
    assert carry.most_typical(frames, carry.grown(masks, 0.0), motions) != 0
