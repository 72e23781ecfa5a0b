"""`bench gpu` gives every row, says what fails, and its FlexAttention is the frame attention of the nodes."""

import time

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils.flop_counter import flop_registry

from benchmarks.common import flops, report
from benchmarks.speed import flex, gpu, steps
from ei2_modules.attention.frame import frame_attention

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
STEPS = ["tune", "tune, checkpointed", "invert", "sample", "controlled"]
ATTENTION = [
    f"FFAM r = 2, {way}{more}" for more in ("", ", with backward") for way in ("gather + SDPA", "FlexAttention")
]
NOT_ON_A_CPU = ATTENTION[-1]  # PyTorch's FlexAttention has no backward pass there


@pytest.fixture
def rows(monkeypatch):
    """rows(*options, until): of the program, in miniature."""

    def made(*options, until=float("inf"), count=None):
        monkeypatch.setattr("sys.argv", ["gpu", "--small", *options])
        monkeypatch.setattr(report, "name", lambda: "gpu")
        with torch.inference_mode():
            found = list(gpu.rows(gpu.parse(), until, count or gpu.counting()))
        return {(row["type"], row["what"]): row for row in found}

    return made


def test_every_row_is_measured(rows):
    found = rows()
    assert list(found) == [(kind, name) for kind in ("bf16", "fp16") for name in ["matrix product", *STEPS, *ATTENTION]]
    for (kind, name), row in found.items():
        if name == NOT_ON_A_CPU:
            assert row["note"].startswith("failed: NotImplementedError: ")
            continue
        assert row["s"] > 0 and row["of matmul"].endswith("%"), row
        best = found[kind, "matrix product"]["TFLOP/s"]
        assert row["of matmul"] == f"{100 * row['TFLOP'] / row['s'] / best:.0f} %"
    flop = {name: found["fp16", name]["TFLOP"] for name in STEPS}
    assert flop["sample"] == 2 * flop["invert"]  # prompt and what it avoids
    assert flop["tune"] > 2 * flop["invert"] and flop["tune, checkpointed"] > flop["tune"]
    assert 1.4 < flop["controlled"] / flop["sample"] < 1.8  # the source besides


def test_the_table_goes_on_where_a_row_fails(rows, monkeypatch):
    def too_large(*args):
        raise torch.OutOfMemoryError("Tried to allocate 9 GiB | of\n8")

    monkeypatch.setattr(steps, "tune", too_large)
    for module, name in ((steps, "invert"), (steps, "controlled"), (gpu, "matrix_product")):
        monkeypatch.setattr(module, name, lambda *args: 1 / 0)
    found = rows("--precision", "fp16", count=lambda name, run: 1)
    assert found["fp16", "tune"]["note"] == "failed: out of memory: Tried to allocate 9 GiB / of 8"
    assert found["fp16", "invert"]["note"] == "failed: ZeroDivisionError: division by zero"
    assert found["fp16", "invert"]["s"] is None
    assert found["fp16", "sample"]["of matmul"] is None
    assert found["fp16", "sample"]["s"] > 0 and found["fp16", ATTENTION[0]]["s"] > 0
    lines = list(report.markdown(found.values()))
    assert len(lines) == len(found) + 2
    assert {line.count("|") for line in lines} == {len(next(iter(found.values()))) + 1}


def test_nothing_begins_when_the_minutes_are_over(rows):
    found = rows("--precision", "bf16", until=time.monotonic() - 1)
    assert {row["note"] for row in found.values()} == {"left out: the minutes are over"} and len(found) == 10


def test_a_machine_without_a_gpu_is_told_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu"])
    monkeypatch.setattr(report, "name", lambda: "gpu")
    with pytest.raises(SystemExit):
        gpu.parse()
    assert "sees no GPU here. Give by --python" in capsys.readouterr().err


SIZES = [(3, (8, 8), 2), (2, (16, 16), 2), (5, (9, 7), 2), (3, (16, 8), 4), (1, (8, 8), 2)]


@pytest.mark.parametrize(("frames", "size", "ratio"), SIZES)
def test_flex_attention_is_ffam(frames, size, ratio):
    q, k, v = torch.randn(3, frames, size[0] * size[1], 32, generator=torch.Generator().manual_seed(0))
    mask = flex.block_mask(frames, size, ratio, q.device)
    found = flex.flex_ffam(q, k, v, mask, 2, size, ratio)
    wanted = frame_attention(q, k, v, kind="FFAM", heads=2, frames=frames, size=size, ratio=ratio)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    slow = create_block_mask(mask.mask_mod, None, None, *mask.seq_lengths, device="cpu")
    for name in ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"):
        assert torch.equal(getattr(mask, name), getattr(slow, name)), name


@pytest.mark.parametrize("backward", [False, True])
def test_attention_is_counted_as_pytorch_does_on_a_gpu(backward):
    """By the formula of the rows of attention, and by the counter with what PyTorch's own does not know of a CPU."""
    aten = torch.ops.aten
    q, k, v = (torch.randn(2, 4, n, 8, requires_grad=backward) for n in (64, 80, 80))
    wanted = flop_registry[aten._scaled_dot_product_flash_attention](q, k, v, out_val=q)
    if backward:
        wanted += flop_registry[aten._scaled_dot_product_flash_attention_backward](q, q, k, v, out_val=q)
    with flops.counter() as counter:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        if backward:
            out.sum().backward()
    assert counter.get_total_flops() == flops.attention(2 * 64, 80, 4 * 8, backward) == wanted
