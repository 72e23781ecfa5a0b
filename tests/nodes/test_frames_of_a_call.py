"""How many frames a call of the UNet holds, whatever the host and other nodes put into its batch."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP

import nodes as host_nodes

from .mini import caption, clip, inflate, invert, model, pack, sample

EI2Error = pack("ei2_modules.errors").EI2Error
HALF = 8  # of a picture of 16x16 latent pixels
QUARTERS = [(y, x) for y in (0, HALF) for x in (0, HALF)]
WAYS = [({}, 1), ({}, 3), ({}, 4), ({"mode": "Tune-A-Video"}, 2), ({"mode": "dense"}, 4)]


def quarter(samples, y, x):
    return samples[..., y : y + HALF, x : x + HALF]


def with_wrapper(m, run):
    """By the hook that Tiled Diffusion uses."""
    m = m.clone()
    m.set_model_unet_function_wrapper(run)
    return m


def tiled(m, at_once):
    """Four quarters of the picture, so many in one call: the first quarter of all rows, then the second, ..."""

    def stacks_tiles(apply_model, args):
        x, out = args["input"], torch.empty_like(args["input"])
        for i in range(0, len(QUARTERS), at_once):
            some = QUARTERS[i : i + at_once]
            many = {k: v.repeat(len(some), 1, 1) if isinstance(v, torch.Tensor) else v for k, v in args["c"].items()}
            time = args["timestep"].repeat(len(some))
            found = apply_model(torch.cat([quarter(x, *place) for place in some]), time, **many)
            for place, part in zip(some, found.chunk(len(some)), strict=True):
                quarter(out, *place).copy_(part)
        return out

    return with_wrapper(m, stacks_tiles)


@pytest.mark.parametrize("frames", [3, 20], ids=["one window", "windows and anchors"])
@pytest.mark.parametrize(("options", "at_once"), WAYS)
def test_tiles_in_the_batch_are_no_frames(options, at_once, frames):
    """A quarter of the tiled picture is what this quarter gives alone, anchors of a long clip included."""
    m = inflate(model(scale=0.05), **options)
    noise = invert(m, clip(frames, 2 * HALF, 2 * HALF), steps=1)[0]
    edited = sample(tiled(m, at_once), noise, cfg=2.0)
    for place in QUARTERS:
        alone = sample(m, {"samples": quarter(noise["samples"], *place)}, cfg=2.0, steps=1)  # noise without its record
        torch.testing.assert_close(quarter(edited, *place), alone, rtol=0, atol=1e-4)


def by_text(m):
    """Each text in a call of its own, and said so."""

    def one_text(apply_model, args):
        count, out = len(args["cond_or_uncond"]), []
        for i in range(count):
            c = {k: v.chunk(count)[i] if isinstance(v, torch.Tensor) else v for k, v in args["c"].items()}
            options = c["transformer_options"]
            own = {key: options[key][i : i + 1] for key in ("cond_or_uncond", "uuids")}
            c["transformer_options"] = {**options, **own}
            out.append(apply_model(args["input"].chunk(count)[i], args["timestep"].chunk(count)[i], **c))
        return torch.cat(out)

    return with_wrapper(m, one_text)


@pytest.mark.parametrize("frames", [3, 20])
def test_texts_in_calls_of_their_own(frames):
    m = inflate(model(scale=0.05))
    noise = invert(m, clip(frames), steps=1)[0]
    torch.testing.assert_close(sample(by_text(m), noise, cfg=2.0), sample(m, noise, cfg=2.0), rtol=0, atol=1e-4)


def by_rows(count):
    def cuts_rows(apply_model, args):
        parts = []
        for i in range(0, len(args["input"]), count):
            c = {k: v[i : i + count] if isinstance(v, torch.Tensor) else v for k, v in args["c"].items()}
            parts.append(apply_model(args["input"][i : i + count], args["timestep"][i : i + count], **c))
        return torch.cat(parts)

    return cuts_rows


def grids(apply_model, args):
    """Four frames beside each other as one picture."""
    x, c = args["input"], args["c"]
    pairs = torch.cat([x[::2], x[1::2]], dim=-1)
    pairs = torch.cat([pairs[::2], pairs[1::2]], dim=-2)
    c = {k: v[::4] if isinstance(v, torch.Tensor) else v for k, v in c.items()}
    rows = torch.cat(apply_model(pairs, args["timestep"][::4], **c).chunk(2, dim=-2))
    return torch.cat(rows.chunk(2, dim=-1))


def test_frames_where_nobody_says_how_many():
    frames = pack("nodes.host.inflating.frames")
    assert frames.frames_in({"cond_or_uncond": [0, 1]}, 6) == 3
    assert frames.frames_in({}, 6) == 6


def test_what_was_said_of_the_frames_is_said_again_afterwards():
    frames, options = pack("nodes.host.inflating.frames"), {}
    with frames.only_frames(options, [1, 2], of=5):
        outer = dict(options)
        with frames.only_frames(options, [4], of=5):
            assert frames.frames_in(options, 1) == 1
        assert options == outer and frames.frames_in(options, 2) == 2
    assert options == {}


REFUSED = {
    "half of the frames": (by_rows(2), "holds 2 rows for 2 texts"),
    "frame by frame": (by_rows(1), "holds 1 rows for 2 texts"),
    "text by text, unsaid": (by_rows(4), "holds 4 rows for 2 texts"),
    "grids of frames": (grids, "holds 2 rows for 2 texts"),
}


@pytest.mark.parametrize("options", [{}, {"attention": "per-frame", "mode": "custom"}], ids=["FFAM", "STAM alone"])
@pytest.mark.parametrize(("run", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_whole_clip_is_refused_by_the_name_of_the_hook(run, message, options):
    m = inflate(model(), **options)
    noise = invert(m, clip(4), steps=1)[0]
    with pytest.raises(EI2Error, match=f"{message}, which are not whole clips of 4 frames.*{run.__name__}"):
        sample(with_wrapper(m, run), noise, cfg=2.0)


def test_a_wrapper_is_named_by_its_key():

    m = inflate(model())
    noise = invert(m, clip(4), steps=1)[0]
    m.add_wrapper_with_key(
        WrappersMP.DIFFUSION_MODEL, "halves", lambda run, x, t, c, *a, **k: run(x[:2], t[:2], c[:2], *a, **k)
    )
    with pytest.raises(EI2Error, match=r"holds 2 rows for 1 text, which .* 4 frames\. Another node \(halves\)"):
        sample(m, noise)


def area():
    return caption() + host_nodes.ConditioningSetArea().append(caption(4), 32, 64, 0, 0, 1.0)[0]


@pytest.mark.parametrize("memory", [None, 1e18], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("text", [caption, lambda: caption() + caption(4), area], ids=["one", "two", "an area"])
@pytest.mark.parametrize(("frames", "seen"), [(3, {3}), (20, {4, 5, 10})])
def test_the_hosts_own_batches(frames, seen, text, memory, monkeypatch):
    def watched(original, *args):
        found.add(original(*args))
        return original(*args)

    m, found = inflate(model(scale=0.05)), set()
    noise = invert(m, clip(frames), steps=1)[0]
    for file in ("attention_hooks", "temporal_hook"):
        hook = pack(f"nodes.host.inflating.{file}")
        original = hook.frames_in
        monkeypatch.setattr(
            hook, "frames_in", lambda *args, original=original: found.add(original(*args)) or original(*args)
        )
    if memory:
        monkeypatch.setattr(type(m.model), "memory_required", lambda self, *a, **k: memory)
    sample(m, noise, positive=text(), cfg=2.0)
    assert found == seen
