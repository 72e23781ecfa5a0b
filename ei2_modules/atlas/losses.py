"""What a fit makes small: the losses of Layered Neural Atlases (Kasten et al. 2021) and what grids need beside them.

Means are over the pixels or points of a step's frames. c is the rendered frame, I the clip, a alpha, M a layer's map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 0.1  # px: below this the flow loss is quadratic
RIDGE = 1e-3  # on J^T J, so that its inverse exists; NLA's


def reconstruction(rendered: Tensor, frames: Tensor) -> Tensor:
    """mean |c - I|^2, summed over colours (NLA's L_color). Both (m, 3, h, w)."""
    return (rendered - frames).square().sum(1).mean()


def gradients(rendered: Tensor, frames: Tensor) -> Tensor:
    """mean |d_x c - d_x I|^2 + mean |d_y c - d_y I|^2, forward differences of one pixel (NLA's L_gradient)."""
    error = rendered - frames
    across, down = error.diff(dim=3), error.diff(dim=2)
    return across.square().sum(1).mean() + down.square().sum(1).mean()


def rigidity(jacobian: Tensor) -> Tensor:
    """mean |J^T J| + |(J^T J)^-1|, Frobenius norms (NLA's L_rigid). Least, 2 sqrt(2), where J only turns.

    jacobian: (..., 2, 2). Of a 2x2 matrix G, |G^-1| = |G| / det G.
    """
    gram = jacobian.mT @ jacobian + RIDGE * torch.eye(2, dtype=jacobian.dtype, device=jacobian.device)
    determinant = gram[..., 0, 0] * gram[..., 1, 1] - gram[..., 0, 1].square()
    length = gram.square().sum((-1, -2)).sqrt()
    return (length + length / determinant.clamp(min=1e-4)).mean()


def flow(gap: Tensor, weight: Tensor, agrees: Tensor) -> Tensor:
    """sum w sqrt(|M(p') - M(p)|^2 + eps^2) / sum agrees, p' = p + flow(p) in the next frame (NLA's L_flow, robust).

    gap: (m, p, 2) = M(p') - M(p) in px; weight (m, p): how much of the layer is seen, no gradient; agrees (m, p): 1
    where the flow agrees both ways. 0 where none does.
    """
    length = (gap.square().sum(-1) + EPS**2).sqrt()
    return (weight.detach() * length * agrees).sum() / agrees.sum().clamp(min=1)


def alpha_flow(here: Tensor, there: Tensor, agrees: Tensor) -> Tensor:
    """sum |a(p) - a(p')| / sum agrees (NLA's L_flow-alpha), over points whose flow agrees both ways. All (m, p)."""
    return ((here - there).abs() * agrees).sum() / agrees.sum().clamp(min=1)


def temporal(values: Tensor) -> Tensor:
    """mean |v_t-1 - 2 v_t + v_t+1|^2 over consecutive frames (m, ...), in px. 0 for less than three."""
    if len(values) < 3:
        return values.new_zeros(())
    return values.diff(n=2, dim=0).square().mean()


def area(alpha: Tensor) -> Tensor:
    """mean a: what both layers can explain goes to the background (in the place of NLA's L_sparsity)."""
    return alpha.mean()


def variation(alpha: Tensor) -> Tensor:
    """mean |d_x a| + mean |d_y a|, of (m, 1, h, w)."""
    return alpha.diff(dim=3).abs().mean() + alpha.diff(dim=2).abs().mean()


def trimap(logit: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """mean -log a where `inside` is 1, mean -log(1 - a) where `outside` is, over all pixels.

    NLA's bootstrapped alpha, but only where the mask is certain, and to the end. logit: of a. All (m, 1, h, w).
    """
    return (F.softplus(-logit) * inside).mean() + (F.softplus(logit) * outside).mean()


def anchor(texture: Tensor, start: Tensor, weight: Tensor, pixels: int) -> Tensor:
    """sum w |T - T_0|^2 / pixels: texels that hardly any frame shows stay as they were filled.

    texture, start (3, rows, columns), weight (rows, columns), near 1 where little was seen.
    """
    return (weight * (texture - start).square()).sum() / pixels


def gains(change: Tensor) -> Tensor:
    """mean |log g - log g_0|^2 of control points: light stays near what the flow told of it."""
    return change.square().mean()
