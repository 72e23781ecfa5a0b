"""What the cases do with the miniature model beside a pack."""

import torch
from torch import Tensor

from tools.server.in_process import pack

from ..nodes.mini import clip, inflate, invert, model, sample, tune

LONG = 20  # frames, more than fit into one window
ROUNDING = 1e-4  # of the range of a clip; sums of another order differ by 1e-7 of it in these models
RIGHT = 20  # times
# Of a model whose frames do not see each other, every frame comes out as it does alone.
PER_FRAME = {"mode": "custom", "attention": "per-frame", "temporal_module": "none"}


def smooth(**options):
    """An inflated model whose output is small, so that rounding does not grow from step to step."""
    return inflate(model(scale=0.05), **options)


def whole_way() -> dict[str, Tensor]:
    """Tuning, inversion and edit."""
    tuned, weights, losses = tune(inflate(model()), clip(), steps=2)
    noise = invert(tuned, steps=3)[0]
    found = {"losses": torch.tensor(losses["loss"]), "noise": noise["samples"], "edit": sample(tuned, noise, cfg=2.0)}
    return found | {name: tensor.clone() for name, tensor in weights.tensors.queries.items()}


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of b's range."""
    return float((a - b).abs().max() / (b.max() - b.min()))


def near(off: float, effect: float, record_property) -> bool:
    """Whether a difference is small beside what a fault would make: `effect`, at least RIGHT times as much."""
    record_property("apart by", f"{off:.1e}, where a wrong frame makes {effect:.1e}")
    return off * RIGHT < effect


def one_frame(latent: dict, i: int) -> dict:
    return latent | {"samples": latent["samples"][i : i + 1]}


def refused(work) -> str | None:
    """What we say where we refuse it in words; None where it was done. Any other error is one."""
    try:
        work()
    except pack("ei2_modules.errors").EI2Error as error:
        return str(error)
    return None
