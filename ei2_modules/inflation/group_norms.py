"""Group norms over all frames of a clip, as the released code of Tune-A-Video has them.

There a clip is one tensor of five dimensions in the residual blocks and before the last convolution, so that mean and
variance of a group go over frames, height and width; at the entry of a transformer it is a batch of pictures again.
"""

from collections.abc import Callable

from einops import rearrange
from torch import Tensor


def over_clips(norm: Callable[[Tensor], Tensor], frames: int, x: Tensor) -> Tensor:
    """A norm of pictures, ((b n), c, h, w) -> the same shape, over the n = frames of each clip.

    It is shown a clip as one tall picture, whose groups have the clip's mean and variance.
    """
    tall = norm(rearrange(x, "(b n) c h w -> b c (n h) w", n=frames))
    return rearrange(tall, "b c (n h) w -> (b n) c h w", n=frames)
