"""The flow of a clip: both ways, checked, drawn; and how it is taken in changing light."""

import pytest
import torch
import torch.nn.functional as F

from ei2_modules.errors import EI2Error
from ei2_modules.motion.flow import Flow, checked, colours, evenly_lit, flow_of

SHIFT = 2


def panned(n=7, light=0.0, seed=0):
    """A texture that goes SHIFT px to the right with every frame, under light that rises by `light` a frame."""
    noise = torch.rand(1, 3, 16, 24 + SHIFT * n, generator=torch.Generator().manual_seed(seed))
    wide = F.interpolate(noise, scale_factor=2, mode="bicubic").clamp(0, 1)
    frames = [wide[0, :, :, (n - t) * SHIFT : (n - t) * SHIFT + 48] * (0.6 + light * t) for t in range(n)]
    return torch.stack(frames)


def error(flow):
    inner = flow.forward[:, :, 6:-6, 8:-8] - torch.tensor([SHIFT, 0.0]).view(1, 2, 1, 1)
    return inner.norm(dim=1).mean().item()


def test_both_ways_and_in_pieces():
    counts = []
    flow = flow_of(panned(7), on_pair=lambda done, there: counts.append((done, len(there))))
    assert counts == [(4, 4), (6, 2)] and (flow.frames, flow.size) == (7, (32, 48))
    assert error(flow) < 0.1
    assert (flow.forward[:, 0, 6:-6, 8:-8] + flow.backward[:, 0, 6:-6, 8:-8]).abs().mean() < 0.1
    assert flow.share() > 0.85
    assert "6 pairs of 48x32 by Lucas-Kanade" in flow.report() and "note" not in flow.report()


def test_light_is_not_taken_for_motion():
    frames = panned(5, light=0.08)
    plain, even = (flow_of(frames, even_light=light) for light in (False, True))
    assert error(even) < 0.25 and error(plain) > 1.5 * error(even)


def test_even_light_is_the_same_in_any_light():
    frames = panned(2)
    assert (evenly_lit(frames) - evenly_lit(0.6 * frames)).abs().mean() < 0.02
    assert (frames - 0.6 * frames).abs().mean() > 0.1


def test_flow_that_contradicts_itself_does_not_agree():
    flow = flow_of(panned(3), lambda first, second: torch.full((len(first), 2, 32, 48), 3.0))
    assert flow.share() == 0 and "note: that is little" in flow.report()


@pytest.mark.parametrize(
    ("direction", "colour"),
    [((1, 0), (1, 0, 0)), ((-1, 0), (0, 1, 1)), ((0, 1), (0.5, 1, 0)), ((0, -1), (0.5, 0, 1)), ((0, 0), (1, 1, 1))],
)
def test_colours_are_directions(direction, colour):
    field = torch.tensor(direction).float().view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert colours(field, 1.0)[0, :, 0, 0].tolist() == pytest.approx(colour, abs=1e-5)
    assert colours(field / 2, 1.0)[0, :, 0, 0].tolist() == pytest.approx([(1 + c) / 2 for c in colour], abs=1e-5)


def some_flow(frames=3, h=8, w=12, value=0.0):
    field, agrees = torch.full((frames - 1, 2, h, w), value), torch.ones(frames - 1, 1, h, w, dtype=torch.bool)
    return Flow(field, field, agrees, agrees, "test")


def overflowing(first, second):
    field = torch.zeros(len(first), 2, 32, 48)
    field[1 if len(first) == 2 else 4 :] = torch.nan
    return field


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: flow_of(panned(1)), "1 frame: motion is between frames"),
        (
            lambda: flow_of(panned(7), overflowing, "mine"),
            "between frames 5 and 6, counted from 0, is not finite .mine.",
        ),
        (lambda: checked(some_flow(), 4, (8, 12)), "3 frames of 12x8, the images are 4 frames of 12x8"),
        (lambda: checked(some_flow(), 3, (12, 8)), "3 frames of 12x8, the images are 3 frames of 8x12"),
        (lambda: checked(some_flow(value=torch.inf), 3, (8, 12)), "not finite"),
    ],
)
def test_bad_flow_is_refused(attempt, message):
    with pytest.raises(EI2Error, match=message):
        attempt()


def test_a_flow_that_fits_is_taken():
    flow = some_flow()
    assert checked(flow, 3, (8, 12)) is flow
