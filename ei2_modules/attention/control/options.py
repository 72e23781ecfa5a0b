"""How an edit follows its source: one set of defaults for each kind of edit, with the reason beside each.

The values were found on the miniature model: tuned EI², 25 steps, guidance 3, seven clips.
"""

from dataclasses import dataclass
from math import floor

from ...errors import EI2Error, require

SOURCES = ("along the inversion", "own prediction", "null text")
CUSTOM = "custom"


@dataclass(frozen=True)
class ControlOptions:
    """Shares are of the steps, from the first on: 0.8 of 25 steps are the first 20. See `steps_of`."""

    cross_share: float = 0.8  # cross-attention says where things are: 0.2 leaves 1.3 px, 0.5 0.54, 0.8 0.38
    self_share: float = 0.6  # queries and keys of frame attention: on top of cross it halves the flicker
    temporal_share: float = 0.0  # queries and keys of the temporal modules
    feature_share: float = 0.0  # features of a residual block
    both_texts: bool = True  # of all shares but cross: under the negative too; False: under the prompt alone
    blend_threshold: float = 0.0  # of a word map's greatest value; 0: no local blend
    blend_start: float = 0.0  # share of the steps that are done before the blend begins
    blend_taken: bool = False  # the edit's words are looked for in the maps that it takes from the clip, not in its own
    fuse_threshold: float = 0.0  # self-attention stays the edit's own where a word is seen above it; 0: nowhere
    noise_share: float = 0.0  # of the noise inside the source word's mask that is renewed
    noise_threshold: float = 0.5  # of that mask
    dilation: int = 1  # px of the latent that the masks grow: the maps end inside the object
    finest: float = 1.0  # side of the largest attention maps that are taken, as a share of the latent's
    source: str = "along the inversion"  # its reconstruction is the source itself; the others place things as well

    def __post_init__(self):
        for name in (*SHARES, "noise_share", "blend_start"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise EI2Error(f"{name.replace('_', ' ')} is {share}: it must be 0 (never) to 1 (all).")
        for name, zero in THRESHOLDS.items():
            threshold = getattr(self, name)
            if not 0 <= threshold < 1:
                what = name.replace("_", " ")
                raise EI2Error(f"{what} is {threshold}: it must be 0 ({zero}) to below 1; 0.4 is usual.")
        if self.dilation < 0:
            raise EI2Error(f"dilation is {self.dilation}: it must be 0 or more pixels of the latent.")
        require("source", self.source, SOURCES)

    @classmethod
    def of_kind(cls, kind: str, source: str = SOURCES[0], **custom) -> "ControlOptions":
        """Options of a kind of edit; only kind "custom" reads `custom`."""
        require("kind of edit", kind, (*KINDS, CUSTOM))
        return cls(source=source, **KINDS.get(kind, custom))

    def steps_of(self, share: str, steps: int) -> int:
        """How many of all steps, from the first on, a share such as "self_share" is of: rounded down, as published.

        Prompt-to-Prompt counts cross_share of one step more: half of 25 steps are 13, and 12 of everything else.
        """
        return floor(getattr(self, share) * (steps + (share == "cross_share")) + ROUNDING)

    def describe(self) -> str:
        """For the node: what an edit takes from its clip."""
        taken = [f"{name.removesuffix('_share')} {getattr(self, name):.0%}" for name in SHARES if getattr(self, name)]
        lines = ["from the clip, in the first steps: " + (", ".join(taken) or "nothing")]
        lines += [f"local blend above {self.blend_threshold:g}"] if self.blend_threshold else []
        lines += [f"fresh noise {self.noise_share:.0%} where the old word is seen"] if self.noise_share else []
        lines += [f"own frame attention above {self.fuse_threshold:g}"] if self.fuse_threshold else []
        return "\n".join(lines)


ROUNDING = 1e-9  # 0.29 of 100 is below 29 in floating point
SHARES = ("cross_share", "self_share", "temporal_share", "feature_share")
THRESHOLDS = {"blend_threshold": "no blend", "fuse_threshold": "no fusing", "noise_threshold": "everywhere"}

# what differs from the fields' own defaults
KINDS = {
    "appearance": {"blend_threshold": 0.4},  # colours and textures: error outside falls to the autoencoder's own
    # more cross or self gives hybrids of both shapes; without the blend fresh noise shows outside: error 9.4, not 5.9
    "shape": {"cross_share": 0.25, "self_share": 0.0, "noise_share": 1.0, "blend_threshold": 0.5},
    # changes everywhere, so nothing is blended; with more cross the clip's own look stays: 0.8 60 % done, 0.5 95 %
    "style": {"cross_share": 0.5},
    "background": {"feature_share": 0.4},  # error 3.9 -> 3.1; a blend mask would cover nearly everything
    # published systems, with their own values; by the paper a blend goes by the new word's own maps, but the released
    # code of Prompt-to-Prompt keeps maps that are written over afterwards
    "Video-P2P": {
        "cross_share": 0.2, "self_share": 0.0, "temporal_share": 0.5, "blend_threshold": 0.3, "blend_start": 0.2,
        "dilation": 0, "blend_taken": True, "both_texts": False,
    },
    "vid2vid-zero": {"self_share": 0.0},  # for refined texts the released code passes 0.4 by mistake
    "FateZero": {"self_share": 0.8, "fuse_threshold": 0.2, "dilation": 0, "finest": 0.5, "both_texts": False},
}  # fmt: skip
