"""How an atlas is fitted, the reason beside each default. Figures are of rendered clips with known maps."""

from dataclasses import dataclass

from ..errors import EI2Error, require

PRESETS = {"preview": 40, "default": 150, "high": 600}  # steps for a clip of FRAMES
FRAMES = 24  # longer clips take more steps in proportion, so that every frame is seen as often
MASKS = ("auto", "rough", "tight")
MOST_TEXELS = 2048  # a side of a layer's picture, at most


@dataclass(frozen=True)
class Motion:
    """What a layer's map may do beside moving as a plane. Cells of the grids of offsets, (rows, columns)."""

    foreground: tuple[int, int] | None = None  # None: no offsets
    background: tuple[int, int] | None = None
    rigidity: float = 5.0
    smooth: float = 1e-3  # of the start's splines: less follows the flow's noise, more keeps perspective out


MOTIONS = {
    "affine": Motion(),
    "rigid": Motion((5, 7), (5, 7)),  # perspective, and what turns a little
    "non-rigid": Motion((8, 12), (5, 7), rigidity=0.5, smooth=1e-5),
}


@dataclass(frozen=True)
class Weights:
    """Of the losses in losses.py."""

    reconstruction: float = 5000.0  # NLA's
    gradients: float = 1000.0  # NLA's
    flow: float = 10.0
    alpha_flow: float = 10.0
    temporal: float = 1.0
    area: float = 20.0  # 60 eats the object
    variation: float = 5.0  # without it alpha gets grains
    trimap: float = 300.0  # without it the object may go into the background's picture
    anchor: float = 500.0  # holds texels that hardly any frame shows
    gains: float = 100.0


@dataclass(frozen=True)
class Rates:
    """Of Adam, for each kind of parameter; they fall to a tenth along a cosine."""

    affine: float = 3e-4
    offsets: float = 1e-3
    texture: float = 5e-2
    alpha: float = 1e-1
    gains: float = 1e-2


@dataclass(frozen=True)
class FitOptions:
    """All that a fit depends on beside the clip, its masks and its flow."""

    steps: int = PRESETS["default"]
    motion: str = "rigid"
    masks: str = "auto"  # rough: alpha is found from motion and colour inside them; tight: alpha follows them
    lighting: bool = False  # a grid of gains a frame, for light that changes
    seed: int = 0
    window: int = 4  # consecutive frames a step sees: bounds memory
    density: float = 1.25  # texels a pixel: finer leaves holes, coarser blurs
    points: int = 600  # of the flow losses, for each pair of frames

    def __post_init__(self):
        require("motion", self.motion, MOTIONS)
        require("masks", self.masks, MASKS)
        if self.steps < 0 or self.window < 2:
            raise EI2Error(f"steps is {self.steps} and window {self.window}: at least 0 and 2.")

    def steps_for(self, frames: int) -> int:
        """Of a clip of so many frames."""
        return round(self.steps * max(frames, FRAMES) / FRAMES)
