"""The motion of an object that is fitted for Carry Key Frame: what it begins with, what it is refined on."""

import pytest
import torch
import torch.nn.functional as F

from ei2_modules.motion import object_motion
from ei2_modules.motion.flow import Flow

from .carrying import SIZE, WAY, clip_of, farthest, turn, with_flow

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
    found = object_motion.robust_similarity(points, targets, 0.1 + torch.rand(60, generator=generator))
    assert torch.allclose(found, move[:2], atol=1e-3 if not outliers else 2e-2)
    if outliers:
        assert not torch.allclose(object_motion.similarity(points, targets, torch.ones(60)), move[:2], atol=0.5)


def test_one_point_is_shifted():
    found = object_motion.similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 1.0]]), torch.ones(1))
    assert torch.allclose(found, torch.tensor([[1.0, 0, 2], [0, 1, -3]]))


def test_points_that_do_not_count_hide_no_outlier():
    """Flat ground is most of an object, and its flow is anything."""
    generator = torch.Generator().manual_seed(0)
    points = SIZE * torch.rand(300, 2, generator=generator)
    targets, weight = points + 1.0, torch.ones(300)
    targets[:20] += 5 + 5 * torch.rand(20, 2, generator=generator)
    targets[100:] += 40 * torch.rand(200, 2, generator=generator) - 20
    weight[100:] = 1e-4
    found = object_motion.robust_similarity(points, targets, weight)
    assert torch.allclose(found, turn(0, 1, 1, 1)[:2], atol=0.05)


def test_by_masks_alone():
    small, large = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    small[10:14, 20:26], large[4:12, 2:14] = True, True
    assert torch.allclose(object_motion.by_mask(small, large), torch.tensor([[2.0, 0, -37.5], [0, 2.0, -15.5]]))


@pytest.mark.parametrize("textured", [True, False])
def test_by_flow_edges_count_and_without_any_all_points(textured):
    frame, flow = torch.zeros(3, SIZE, SIZE), torch.full((2, SIZE, SIZE), 2.0)
    if textured:
        frame[:, 10:20, 10:20] = torch.rand(10, 10, generator=torch.Generator().manual_seed(0))
        flow[:, 24:] = -5.0
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    assert torch.allclose(object_motion.by_flow(frame, mask, flow), turn(0, 1, 2, 2)[:2], atol=1e-3)


def test_motions_are_chained():
    frames, masks, flow = clip_of(WAY)
    found = object_motion.motions(frames, masks, flow)
    assert farthest(found, WAY) < 0.3
    assert "turns by 20 degrees (clockwise) and becomes 1.10 times as large" in object_motion.described(found)


# what is done to (frames, masks, flow), and the way of the object
def one_mask(masks):
    return masks.amax(0, keepdim=True).expand_as(masks)


def crossed(frames):
    """Something bright or dark lies over the object in turn."""
    frames = frames.clone()
    frames[::2, :, 12:17], frames[1::2, :, 12:17] = 0, 1
    return frames


FAR = [turn(0, 1, 8.0 * t - 8, 0) for t in range(3)]
HARD = {
    "a square seems not to turn": ([turn(50 * t) for t in range(3)], lambda f, m, flow: (f, m, flow)),
    "flow is wrong": (WAY, lambda f, m, flow: (f, m, with_flow(flow, (9, -9)))),
    "one mask": (WAY, lambda f, m, flow: (f, one_mask(m), flow)),
    "one mask, a faint object": (FAR, lambda f, m, flow: (f / 10, one_mask(m), flow)),
    "one mask, no flow": (FAR, lambda f, m, flow: (f, one_mask(m), with_flow(flow, (0, 0)))),
    "something before it": (WAY, lambda f, m, flow: (crossed(f), m, flow)),
}


@pytest.mark.parametrize(("way", "given"), HARD.values(), ids=HARD.keys())
def test_hard_clips(way, given):
    assert farthest(object_motion.motions(*given(*clip_of(way))), way) < 0.5


def test_an_object_turns_about_its_own_middle():
    """Far from the corner from which pixels count."""
    frames, masks, _ = clip_of([turn(0), turn(12)])
    first, second = F.pad(torch.cat([frames, masks], 1), (160, 0, 120, 0), mode="replicate")
    found, _ = object_motion.aligned(second, first, second[3:], torch.eye(3)[:2])
    shift = torch.tensor([160.0, 120])
    corners = torch.tensor([[11.0, 11], [29, 11], [29, 29], [11, 29]])
    turned = corners @ turn(12)[:2, :2].T + turn(12)[:2, 2] + shift
    assert (turned @ found[:, :2].T + found[:, 2] - shift - corners).norm(dim=1).max() < 0.5


def test_a_turn_of_a_disc_is_not_believed():
    axis = torch.arange(SIZE) - SIZE / 2
    disc = (8 - (axis[:, None].square() + axis.square()).sqrt()).sigmoid()[None]
    found, _ = object_motion.aligned(disc, disc, disc, turn(10)[:2])
    assert abs(found[1, 0]) < 0.02


def test_where_nothing_is_seen_nothing_moves():
    black, everywhere = torch.zeros(3, 3, SIZE, SIZE), torch.ones(3, 1, SIZE, SIZE)
    flow = with_flow(clip_of(WAY[:3])[2], (0, 0))
    assert torch.allclose(object_motion.motions(black, everywhere, flow), torch.eye(3).expand(3, 3, 3), atol=1e-4)


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
    last = object_motion.motions(frames, masks, flow)[-1]
    assert torch.allclose(last[:2, :2], torch.eye(2), atol=0.02)


def test_over_a_gap_the_object_moves_as_its_mask():
    shifts = [turn(0, 1, 3.0 * t, 0) for t in range(4)]
    frames, masks, flow = clip_of(shifts)
    masks[1:3] = 0
    found = object_motion.motions(frames, masks, flow)
    assert torch.allclose(found[3], torch.linalg.inv(shifts[3]), atol=1e-4)
    assert torch.equal(found[1], torch.eye(3)) and torch.equal(found[2], torch.eye(3))
