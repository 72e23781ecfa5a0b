"""A flow that was made elsewhere, by RAFT say, as the guide of the warp error."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import EI2Error
from ..motion.flow import Flow
from .figures import clip_size, cropped_as_encoded

SURE = 0.99  # of a pixel's flow that must agree both ways


def given_motion(flow: Flow, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """As `figures.follow` gives it: from each frame back to the one before, and where it can be trusted.

    flow: of `images` (n, h, w, c) or of the clip before VAE Encode cut it. size: (h, w) in which the error is measured;
    lengths are scaled with it. Raises EI2Error for the flow of another clip.
    """
    both = torch.cat([flow.backward, flow.backward_agrees.float()], 1).movedim(1, -1)  # (n - 1, h, w, 3)
    cut = cropped_as_encoded(both, images)
    if flow.frames != len(images) or cut.shape[1:3] != images.shape[1:3]:
        h, w = flow.size
        raise EI2Error(
            f"flow is of {flow.frames} frames of {w}x{h}, images has {clip_size(images)}. Compute it from the source."
        )
    (h, w), (rows, columns) = cut.shape[1:3], size
    small = F.interpolate(cut.movedim(-1, 1).to(images.device), size, mode="area")
    return small[:, :2] * small.new_tensor([columns / w, rows / h]).view(1, 2, 1, 1), small[:, 2:] > SURE
