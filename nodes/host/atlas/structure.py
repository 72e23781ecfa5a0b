"""What keeps an edited key frame's shape: the host's Canny edges, through a ControlNet in the conditioning."""

from dataclasses import dataclass

import comfy.model_management as mm
from comfy.controlnet import ControlBase
from comfy.sd import VAE
from comfy_extras.nodes_canny import Canny
from torch import Tensor

from ....ei2_modules.errors import EI2Error


@dataclass(frozen=True)
class Structure:
    """A ControlNet and the edges that it is shown; thresholds of 255, as OpenCV counts them."""

    net: ControlBase
    strength: float = 1.0
    low: int = 100
    high: int = 200

    def __post_init__(self):
        if self.low >= self.high:
            raise EI2Error(f"canny_low {self.low} must be less than canny_high {self.high}: 100 and 200 are usual.")

    def edges(self, crops: Tensor) -> Tensor:
        """(k, 3, h, w) in 0..1 -> the same, white on black."""
        found = Canny.execute(crops.movedim(1, -1).to(mm.get_torch_device()), self.low / 255, self.high / 255)
        return found.args[0].movedim(-1, 1).cpu()

    def on(self, conds: tuple[list, list], crops: Tensor, vae: VAE) -> tuple[list, list]:
        """Positive and negative with the ControlNet behind those that they have, as ControlNetApplyAdvanced does."""
        edges, nets = self.edges(crops), {}

        def controlled(options: dict) -> dict:
            before = options.get("control")
            if before not in nets:
                nets[before] = self.net.copy().set_cond_hint(edges, self.strength, (0.0, 1.0), vae=vae)
                nets[before].set_previous_controlnet(before)
            return {**options, "control": nets[before], "control_apply_to_uncond": False}

        return tuple([[embedding, controlled(options)] for embedding, options in cond] for cond in conds)
