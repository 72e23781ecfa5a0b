"""What Fit Video Atlas is asked for, and what makes it the same as an earlier time."""

from dataclasses import asdict, dataclass

from torch import Tensor

from ....ei2_modules.atlas.checks import checked_frames, checked_mask
from ....ei2_modules.atlas.options import MOTIONS, FitOptions, Rates, Weights
from ....ei2_modules.motion.flow import Flow, checked
from .. import optical_flow
from ..images import frames_of, masks_of
from ..resume.key import content_hash


@dataclass(frozen=True)
class FitJob:
    """Checked, and on the CPU."""

    frames: Tensor  # (n, 3, h, w)
    masks: tuple[Tensor, ...]  # (n, 1, h, w) each, from front to back
    flow: Flow | None
    options: FitOptions

    @classmethod
    def of(cls, images: Tensor, masks: dict[str, Tensor | None], flow: Flow | None, options: FitOptions, most: int):
        """masks: by the names of their inputs. Raises EI2Error before any work."""
        frames = checked_frames(frames_of(images, "images").cpu(), most)
        found = {name: masks_of(mask, name).cpu() for name, mask in masks.items() if mask is not None}
        found = tuple(checked_mask(mask, frames, name) for name, mask in found.items())
        return cls(frames, found, flow and checked(flow, len(frames), frames.shape[-2:]), options)

    @property
    def steps(self) -> int:
        return self.options.steps_for(len(self.frames))

    def key(self) -> str:
        """Of all that the result depends on, by contents. Steps too: the rates fall along a cosine over all of them."""
        options, flow = self.options, self.flow
        fitted = [asdict(options), asdict(MOTIONS[options.motion]), asdict(Rates()), asdict(Weights())]
        if flow is None:
            way = optical_flow.what_auto_is(tuple(self.frames.shape[-2:]))
        else:
            way = [*map(list, (flow.forward, flow.backward, flow.forward_agrees, flow.backward_agrees)), flow.method]
        # As lists, frame by frame: a hash copies what it takes.
        return content_hash([list(self.frames), [list(mask) for mask in self.masks], way, fitted])
