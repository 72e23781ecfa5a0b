"""Affine motion that outliers do not pull along: iteratively reweighted least squares."""

import torch
from torch import Tensor

ROUNDS = 8  # of reweighting; the last ones no longer change anything
SPREAD = 1.5  # times the median residual: where an outlier begins to lose weight
TRUSTED = 0.3  # weight from which on a point counts for the median


def fit(points: Tensor, targets: Tensor, weight: Tensor, unit: float) -> Tensor:
    """The affine maps that take points to targets, robustly.

    points (p, 2), targets (n, p, 2), weight (n, p) in 0..1. Weights are multiplied by 1 / (1 + (r / s)^2)^2, that is
    Geman and McClure's, s being `SPREAD` times the median residual r and a quarter pixel of `unit` at least.
    Returns (n, 2, 3).
    """
    points, targets, weight = points.double(), targets.double(), weight.double()
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)  # (p, 3)
    found = _solve(homogeneous, targets, weight)
    for _ in range(ROUNDS):
        residual = (targets - homogeneous @ found.mT).norm(dim=2)
        found = _solve(homogeneous, targets, reweighted(residual, weight, unit))
    return found.float()


def reweighted(residual: Tensor, weight: Tensor, unit: float) -> Tensor:
    """Weights (n, p) after a round, as `fit` says."""
    median = torch.where(weight > TRUSTED, residual, torch.nan).nanmedian(dim=1, keepdim=True).values
    s = (SPREAD * median.nan_to_num(0)).clamp(min=0.25 / unit)
    return weight / (1 + (residual / s).square()).square()


def _solve(homogeneous: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """(n, 2, 3), weighted least squares. Where too few points count, the picture as a whole stands in for them."""
    weight = weight + 1e-6
    squares = (homogeneous[:, :, None] * homogeneous[:, None, :]).flatten(1)  # (p, 9)
    normal = (weight @ squares).view(-1, 3, 3)
    right = homogeneous.mT @ (weight[..., None] * targets)  # (n, 3, 2)
    return torch.linalg.solve(normal, right).mT
