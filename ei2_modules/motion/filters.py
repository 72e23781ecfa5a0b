"""Pictures by the pixels around each."""

import torch.nn.functional as F
from torch import Tensor


def blurred(x: Tensor, side: int) -> Tensor:
    """Box mean of (c, h, w) over side x side pixels, the border repeated."""
    return F.avg_pool2d(F.pad(x[None], (side // 2,) * 4, mode="replicate"), side, 1)[0]


def widened(mask: Tensor, reach: int) -> Tensor:
    """(n, 1, h, w) or (1, h, w) with every value spread as far as `reach` pixels, in a square."""
    mask = F.max_pool2d(mask, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(mask, (1, 2 * reach + 1), 1, (0, reach))


def grown(masks: Tensor, by: float) -> Tensor:
    """(n, 1, h, w) or (1, h, w), wider by a share of the longer side, with a soft edge."""
    reach = max(1, round(by * max(masks.shape[-2:]))) if by else 0
    wide = widened((masks > 0.5).float(), reach)
    return F.avg_pool2d(F.pad(wide, (1,) * 4, mode="replicate"), 3, 1)
