"""Every option of the method, with the reason beside its default."""

from dataclasses import dataclass

from .attention.layouts import ATTENTION_NAMES
from .attention.temporal import PUBLISHED, TEMPORAL_MODULES
from .errors import EI2Error, require

WINDOW = 16  # frames that see each other at once; longer clips go through in windows
STAM_INITS = ("zero-query", "random", "clamp", PUBLISHED)
PER_FRAME, POOLED = GROUP_NORMS = ("per frame", "pooled")

# mode -> the options it sets. The official Tune-A-Video never trains its temporal Layer Norm, whose scale and shift
# therefore stay 1 and 0: "without scale" is that method, number for number. The last three are their released codes,
# which pool group norms as Tune-A-Video's does; that mode leaves it, and its start, to the user.
_POOLED = {"group_norm": POOLED}
MODES = {
    "EI²": {"attention": "FFAM", "temporal": "STAM"},
    "Tune-A-Video": {"attention": "SCA", "temporal": "layer norm without scale"},
    "dense": {"attention": "dense", "temporal": "none"},
    "Video-P2P": {
        "attention": "first-frame",
        "temporal": "layer norm without scale",
        "stam_init": PUBLISHED,
        **_POOLED,
    },
    "vid2vid-zero": {"attention": "vid2vid-zero", "temporal": "none", **_POOLED},
    "FateZero": {"attention": "FateZero", "temporal": "none", **_POOLED},
}
CUSTOM = "custom"


@dataclass(frozen=True)
class InflateOptions:
    """How an image UNet becomes a video UNet (paper section 4)."""

    attention: str = "FFAM"  # in place of self-attention, eq. 10
    coarse_ratio: int = 2  # r: the +14 % time of the paper's Table 1 fits r = 2 at 8 frames, not 4
    temporal: str = "STAM"  # after the feed-forward, eq. 6 to 9
    stam_init: str = "zero-query"  # exact identity at the start while eq. 8 holds strictly
    seed: int = 33  # of the temporal module's random start; 33 is Tune-A-Video's
    group_norm: str = PER_FRAME  # as the host; pooled over all frames is the released code of Tune-A-Video

    def __post_init__(self):
        require("attention", self.attention, ATTENTION_NAMES)
        require("temporal module", self.temporal, TEMPORAL_MODULES)
        require("stam init", self.stam_init, STAM_INITS)
        require("group norm", self.group_norm, GROUP_NORMS)
        if not 1 <= self.coarse_ratio <= 64:
            raise EI2Error(f"coarse ratio r is {self.coarse_ratio}: it must be 1 to 64 (the paper uses 2 or 4).")

    @classmethod
    def from_mode(cls, mode: str, attention: str, temporal: str, **rest) -> "InflateOptions":
        """Options of a named mode, and what it leaves open; only "custom" reads `attention` and `temporal`."""
        require("mode", mode, (*MODES, CUSTOM))
        return cls(**{"attention": attention, "temporal": temporal, **rest} | MODES.get(mode, {}))


PAPER = "paper"
# preset -> what it sets of the tuning. fast moves the weights as far as the paper's 500 steps: steps times rate is the
# same. Fewer steps at the paper's rate learn the clip less firmly, which leaves a strong change room.
TUNING_PRESETS = {
    "fast": {"steps": 200, "learning_rate": 7.5e-5},
    PAPER: {},
    "strong change": {"steps": 300},
}


@dataclass(frozen=True)
class TuningOptions:
    """One-shot tuning (paper section 5; what the paper leaves out is Tune-A-Video's published value)."""

    steps: int = 500
    learning_rate: float = 3e-5
    seed: int = 33
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    adam_eps: float = 1e-8
    max_grad_norm: float = 1.0  # clipped over all trained tensors together
    window: int = WINDOW  # frames of a longer clip that one step sees

    @classmethod
    def from_preset(cls, preset: str, **given) -> "TuningOptions":
        """`given`, with what a preset sets in the place of values that are the paper's: those were not touched."""
        require("preset", preset, TUNING_PRESETS)
        untouched = {name: v for name, v in TUNING_PRESETS[preset].items() if given[name] == getattr(cls, name)}
        return cls(**given | untouched)

    def __post_init__(self):
        if self.steps < 1:
            raise EI2Error(f"steps is {self.steps}: tuning needs at least 1 (the paper uses 500).")
        if self.window < 1:
            raise EI2Error(f"window is {self.window}: a step of tuning needs at least 1 frame (the paper uses 8).")
        if not self.learning_rate > 0:
            raise EI2Error(f"learning rate is {self.learning_rate}: it must be above 0 (the paper uses 3e-5).")
