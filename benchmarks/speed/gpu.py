"""One command for whoever has a GPU: time, memory and use of it by every part, as a Markdown table to send in.

    python dev.py bench gpu                                      within 8 minutes
    python dev.py bench gpu --python PYTHON --host COMFYUI       with what is there: nothing is installed or fetched
    python dev.py bench gpu --small                              the same code on a CPU, in miniature: does it run?

8 frames of 512x512, random weights of SD1.5's size, which cost what trained ones cost. "s" is one step (sampling with
guidance, two passes in one call), the median after a first one, or one call of the attention of the widest layer.
"peak GiB" is what PyTorch held at most, weights and all. "TFLOP" is counted: of steps by torch.utils.flop_counter, of
attention from the numbers of keys. "of matmul" is the share of the rate that a large matrix product of the same type
reaches in the same run. A row that fails says why, and the others go on; what would begin later than --minutes says so.
"""

import argparse
import functools
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ei2_modules.attention.frame import ATTENTIONS, frame_attention
from tools.server.in_process import host, pack

from ..common import base_models, flops, miniature, report
from . import flex, steps

management = host("comfy.model_management")
PRECISIONS = pack("nodes.host.precision").PRECISIONS
RATIO, HEADS, CALLS = 2, 8, 5
SMALL = {"frames": 2, "latent": 8, "steps": 1, "product": 64, "width": 128}  # what --small makes of the options
ONE_LEVEL = {"num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}
PRODUCT = "matrix product"
LETTERS = 160  # of a failure, that a row shows


@dataclass(frozen=True)
class Figures:
    """Of one row; None where nothing was measured."""

    seconds: float | None = None
    peak: int | None = None  # bytes
    flop: int | None = None
    note: str = ""

    @property
    def rate(self) -> float | None:
        """FLOP a second."""
        return self.flop / self.seconds if self.flop and self.seconds else None


Works = dict[str, Callable[[], Figures]]


def rows(values, until: float, count: Callable) -> Iterator[dict]:
    """A row for every work in every type, as they are done. until: of the monotonic clock. count: see `counting`."""
    for precision in values.precision:
        best = None
        for name, work in works(values, precision, count).items():
            found = attempt(work, until)
            best = found.rate if name == PRODUCT else best
            yield row(name, precision, found, best)
        management.unload_all_models()


def works(values, precision: str, count: Callable) -> Works:
    """What the others are compared with, and then the most wanted first."""
    case = functools.cache(lambda: make_case(values, precision))
    runs = {
        "tune": lambda n, after: steps.tune(case(), n, after, precision),
        "tune, checkpointed": lambda n, after: steps.tune(case(), n, after, precision, "on"),
        "invert": lambda n, after: steps.invert(case(), n, after),
        "sample": lambda n, after: steps.sample(case(), n, after),
        "controlled": lambda n, after: steps.controlled(case(), n, after),
    }
    found = {PRODUCT: lambda: matrix_product(values.product, PRECISIONS[precision])}
    found |= {name: functools.partial(of_step, name, run, values.steps, count) for name, run in runs.items()}
    return found | attention_works(values, PRECISIONS[precision])


def attention_works(values, dtype: torch.dtype) -> Works:
    """FFAM both ways, forwards alone and with gradients."""
    ways = {"gather + SDPA": gathered, "FlexAttention": flexible}
    return {
        f"FFAM r = {RATIO}, {way}{', with backward' if backward else ''}": functools.partial(
            of_attention, make, values, dtype, backward
        )
        for backward in (False, True)
        for way, make in ways.items()
    }


def make_case(values, precision: str) -> steps.Case:
    dtype, clip = PRECISIONS[precision], base_models.clip(values.frames, values.latent, values.latent)["samples"]
    if values.small:
        return steps.Case.inflated(
            miniature.model(stored=dtype, computes=dtype, **ONE_LEVEL), clip, text=miniature.caption()
        )
    return steps.Case.inflated(base_models.model(dtype), clip)


def matrix_product(size: int, dtype: torch.dtype) -> Figures:
    """Of random numbers: of zeros a GPU makes more, as it draws less power."""
    a, b = torch.randn(2, size, size, device=management.get_torch_device()).to(dtype)
    return Figures(*timed(lambda: a @ b), 2 * size**3, f"{size} x {size}")


def of_step(name: str, run: steps.Run, number: int, count: Callable) -> Figures:
    counted = count(name, run)
    reset_peak()
    seconds = statistics.median(steps.differences(run, number, report.now))
    return Figures(seconds, peak(), counted)


def counting() -> Callable:
    """(name, run) -> FLOP of a step, counted in the first type whose run succeeds: they are the same in all."""
    known: dict[str, int] = {}

    def count(name: str, run: steps.Run) -> int:
        if name not in known:
            with flops.counter() as counter:
                (known[name],) = steps.differences(run, 1, counter.get_total_flops)
        return known[name]

    return count


def of_attention(make: Callable, values, dtype: torch.dtype, backward: bool) -> Figures:
    """make: (values, device) -> attention of (q, k, v)."""
    device, tokens = management.get_torch_device(), values.latent**2
    with torch.inference_mode(False), torch.set_grad_enabled(backward):
        generator = torch.Generator().manual_seed(0)
        inputs = list(torch.randn(3, values.frames, tokens, values.width, generator=generator).to(device, dtype))
        usual, attend = gathered(values, device), make(values, device)
        off = float((attend(*inputs) - usual(*inputs)).abs().max())
        inputs = [x.requires_grad_(backward) for x in inputs]

        def call():
            out = attend(*inputs)
            return torch.autograd.grad(out.sum(), inputs) if backward else out

        seconds, most = timed(call)
    seen = ATTENTIONS["FFAM"].count(values.frames, tokens, (-(-values.latent // RATIO)) ** 2)
    counted = flops.attention(values.frames * tokens, seen, values.width, backward)
    return Figures(seconds, most, counted, f"differs by {off:.1g} at most" if off else "")


def gathered(values, device: torch.device) -> Callable:
    """As the nodes do it."""
    size = (values.latent, values.latent)
    return lambda q, k, v: frame_attention(
        q, k, v, kind="FFAM", heads=HEADS, frames=values.frames, size=size, ratio=RATIO
    )


def flexible(values, device: torch.device) -> Callable:
    size = (values.latent, values.latent)
    mask = flex.block_mask(values.frames, size, RATIO, device)
    return lambda q, k, v: flex.flex_ffam(q, k, v, mask, HEADS, size, RATIO)


def timed(call: Callable) -> tuple[float, int | None]:
    """(median seconds, bytes at the peak), after two that warm up."""
    for _ in range(2):
        call()
    reset_peak()
    times = []
    for _ in range(CALLS):
        began = report.now()
        call()
        times.append(report.now() - began)
    return statistics.median(times), peak()


def reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def attempt(work: Callable[[], Figures], until: float) -> Figures:
    """What a work measured, or why there is nothing."""
    if time.monotonic() > until:
        return Figures(note="left out: the minutes are over")
    try:
        return work()
    except Exception as error:
        failed = Figures(note=failure(error))
    finally:
        free()
    management.unload_all_models()
    return failed


def free() -> None:
    """What the last work left must not count for the next."""
    if torch.cuda.is_available():
        gc.collect()
        management.soft_empty_cache()


def failure(error: Exception) -> str:
    """In one cell."""
    text = " ".join(str(error).split()).replace("|", "/")
    kind = "out of memory" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
    return f"failed: {kind}: {text[:LETTERS]}"


def row(name: str, precision: str, found: Figures, best: float | None) -> dict:
    """best: the rate of the matrix product."""
    peak_gib = None if found.peak is None else found.peak / 2**30
    share = f"{100 * found.rate / best:.0f} %" if found.rate and best else None
    return {
        "what": name, "type": precision, "s": found.seconds, "peak GiB": peak_gib,
        "TFLOP": found.flop and found.flop / 1e12, "TFLOP/s": found.rate and found.rate / 1e12,
        "of matmul": share, "note": found.note,
    }  # fmt: skip


def parse():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--latent", type=int, default=64, help="on each side: pixels / 8")
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--minutes", type=float, default=8.0, help="nothing is begun after them")
    options.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["bf16", "fp16"])
    options.add_argument("--small", action="store_true", help="in miniature, on any machine")
    options.set_defaults(product=8192, width=320)
    values = report.parse(options, as_json=False)
    if values.small:
        vars(values).update(SMALL)
    elif not torch.cuda.is_available():
        options.error(
            f"PyTorch {torch.__version__} sees no GPU here. Give by --python a Python whose PyTorch does, such as "
            "ComfyUI's own; --small runs the same code in miniature on a CPU."
        )
    return values


def main() -> None:
    values, began = parse(), time.monotonic()
    with torch.inference_mode():
        for line in report.markdown(rows(values, began + 60 * values.minutes, counting())):
            print(line, flush=True)
    size = values.latent * 8
    model = "a miniature model" if values.small else "SD1.5's size"
    minutes = (time.monotonic() - began) / 60
    print(f"\n{values.frames} frames of {size}x{size}, random weights of {model}, in {minutes:.1f} minutes")
    print(report.origin())


if __name__ == "__main__":
    main()
