"""Defaults for each kind of edit, and values that cannot be."""

from fractions import Fraction

import pytest

from ei2_modules.attention.control.options import CUSTOM, KINDS, SOURCES, ControlOptions
from ei2_modules.errors import EI2Error

# what the trial found: cross, self, features, blend, noise
FOUND = {
    "appearance": (0.8, 0.6, 0.0, 0.4, 0.0),
    "shape": (0.25, 0.0, 0.0, 0.5, 1.0),
    "style": (0.5, 0.6, 0.0, 0.0, 0.0),
    "background": (0.8, 0.6, 0.4, 0.0, 0.0),
    "Video-P2P": (0.2, 0.0, 0.0, 0.3, 0.0),
    "vid2vid-zero": (0.8, 0.0, 0.0, 0.0, 0.0),
    "FateZero": (0.8, 0.8, 0.0, 0.0, 0.0),
}


def test_defaults_by_kind():
    names = ("cross_share", "self_share", "feature_share", "blend_threshold", "noise_share")
    found = {kind: tuple(getattr(ControlOptions.of_kind(kind), name) for name in names) for kind in KINDS}
    assert found == FOUND


def test_only_video_p2p_blends_by_what_it_takes():
    """As its released code; the paper of Prompt-to-Prompt goes by the new word's own maps, and so do the others."""
    assert [kind for kind in KINDS if ControlOptions.of_kind(kind).blend_taken] == ["Video-P2P"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_custom_reads_values(kind):
    assert ControlOptions.of_kind(kind, cross_share=0.11) == ControlOptions.of_kind(kind)
    assert ControlOptions.of_kind(kind, source="null text").source == "null text"


def test_custom_reads_all():
    values = {"cross_share": 0.1, "self_share": 0.2, "feature_share": 0.3, "blend_threshold": 0.5, "noise_share": 0.6}
    options = ControlOptions.of_kind(CUSTOM, "own prediction", noise_threshold=0.7, dilation=3, **values)
    assert options == ControlOptions(**values, noise_threshold=0.7, dilation=3, source="own prediction")


SHARES = ("cross_share", "self_share", "feature_share", "noise_share")


@pytest.mark.parametrize(
    "values",
    [
        *({name: edge} for name in SHARES for edge in (0, 1)),
        *({name: edge} for name in ("blend_threshold", "noise_threshold") for edge in (0, 0.999)),
        {"dilation": 0},
        *({"source": source} for source in SOURCES),
    ],
)
def test_values_that_can_be(values):
    options = ControlOptions(**values)
    assert {name: getattr(options, name) for name in values} == values


def counted(share, steps, extra=0):
    """In whole numbers: how many steps are done before more than this share of them would be."""
    exact, taken = Fraction(str(share)) * (steps + extra), 0
    while taken + 1 <= exact:
        taken += 1
    return taken


@pytest.mark.parametrize("steps", [1, 4, 10, 15, 20, 25, 30, 40, 50, 100])
def test_how_many_steps_a_share_is_of(steps):
    """As Prompt-to-Prompt and what follows it count: the cross share of one step more."""
    for share in [k / 100 for k in range(101)]:
        options = ControlOptions(
            cross_share=share, self_share=share, temporal_share=share, feature_share=share, blend_start=share
        )
        assert options.steps_of("cross_share", steps) == counted(share, steps, 1), share
        for name in ("self_share", "temporal_share", "feature_share", "blend_start"):
            assert options.steps_of(name, steps) == counted(share, steps), share


@pytest.mark.parametrize(
    ("share", "steps", "cross", "other"),
    [(0.2, 50, 10, 10), (0.2, 25, 5, 5), (0.5, 25, 13, 12), (0.1, 10, 1, 1), (1.0, 4, 5, 4), (0.0, 50, 0, 0)],
)
def test_steps_of_published_settings(share, steps, cross, other):
    options = ControlOptions(cross_share=share, self_share=share)
    assert (options.steps_of("cross_share", steps), options.steps_of("self_share", steps)) == (cross, other)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        *(({name: value}, f"{name.replace('_', ' ')} is {value}") for name in SHARES for value in (-0.1, 1.01)),
        ({"cross_share": float("nan")}, "cross share is nan"),
        ({"blend_threshold": 1.0}, "blend threshold is 1.0.*no blend"),
        ({"blend_threshold": -0.5}, "blend threshold is -0.5"),
        ({"noise_threshold": 1.0}, "noise threshold is 1.0.*everywhere"),
        ({"dilation": -1}, "dilation is -1"),
        ({"source": "inversion"}, "source is 'inversion': it must be one of along the inversion, own prediction"),
    ],
)
def test_values_that_cannot_be(values, named):
    with pytest.raises(EI2Error, match=named):
        ControlOptions(**values)


def test_kinds_that_are_not():
    with pytest.raises(
        EI2Error, match=r"'colour': it must be one of appearance, shape, style, background, Video-P2P, .*custom"
    ):
        ControlOptions.of_kind("colour")
