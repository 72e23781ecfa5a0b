"""Several edits in one node: each is what the single nodes make of it, and what stops early leaves what is done."""

import logging
from pathlib import Path

import pytest
import torch

from .mini import inflate, pack, run

EI2Error = pack("ei2_modules.errors").EI2Error
listing = pack("nodes.host.several_edits.listing")
CAPTION = "a red circle moving on a blue background"
GREEN, STAR, YELLOW = (CAPTION.replace(*words) for words in (("red", "green"), ("circle", "star"), ("blue", "yellow")))
SIZE, STEPS = 64, 3


@pytest.fixture(scope="module")
def ready():
    """Arguments of every run: the miniature model, and a clip of two frames inverted with it."""
    with torch.inference_mode():
        model, clip, vae = run("demo_model.LoadDemoModel")[:3]
        model = inflate(model)
        things = {"shape": "circle", "colour": "red", "background": "blue", "motion": "slide"}
        images = run("demo_model.DemoClip", **things, frames=2)[0]
        empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        latent = run(
            "invert_video.InvertVideo", model=model, latents={"samples": vae.encode(images)}, positive=empty,
            steps=STEPS, fixed_point_iterations=0,
        )[0]  # fmt: skip
        return {"model": model, "latent": latent, "clip": clip, "vae": vae, "negative": empty, "source": images}


def several(ready, prompts, **options):
    settings = {
        "caption": CAPTION, "kind": "appearance", "cfg": 3.0, "strength": 1.0, "seed": 0, "sweep": "nothing",
        "values": "", "fps": 8.0,
    }  # fmt: skip
    return run("several_edits.SeveralEdits", **ready, **{**settings, "prompts": prompts, **options})


def single(ready, prompt, kind="appearance", cfg=3.0, strength=1.0, seed=0, **shares):
    """By Prompt Edit, Attention Control and EI² Sampler."""
    given = {name: ready[name] for name in ("model", "latent", "negative")}
    _, positive, edit, _ = run("prompt_edit.PromptEdit", clip=ready["clip"], caption=CAPTION, prompt=prompt)
    options = pack("ei2_modules.attention.control.options").ControlOptions.of_kind
    chosen = None
    if kind is not None:
        found = options(kind)
        chosen = pack("nodes.host.control.guider").Control(edit, type(found)(**{**vars(found), **shares}))
    latent = run(
        "sampler.EI2Sampler", **given, positive=positive, cfg=cfg, seed=seed, eta=0.0, control=chosen, strength=strength
    )[0]
    return ready["vae"].decode(latent["samples"]).clamp(0, 1)


# prompts, options -> what each clip is
SAME = {
    "two lines": (f"{GREEN}\n\n# {YELLOW}\n{YELLOW}\n", {}, [{"prompt": GREEN}, {"prompt": YELLOW}]),
    "kinds": (
        f"shape: {STAR}\nwithout control: {GREEN}",
        {"seed": 4},
        [{"prompt": STAR, "kind": "shape", "seed": 4}, {"prompt": GREEN, "kind": None}],
    ),
    "cfg": (GREEN, {"sweep": "cfg", "values": "2, 5"}, [{"prompt": GREEN, "cfg": cfg} for cfg in (2.0, 5.0)]),
    "strength": (GREEN, {"sweep": "strength", "values": "0.7 1"}, [{"prompt": GREEN, "strength": s} for s in (0.7, 1)]),
    "share": (
        GREEN,
        {"sweep": "cross_share", "values": "0 1"},
        [{"prompt": GREEN, "cross_share": 0.0}, {"prompt": GREEN, "cross_share": 1.0}],
    ),
    "all strengths": (GREEN, {"strength": 0.7}, [{"prompt": GREEN, "strength": 0.7}]),
}


@pytest.mark.parametrize("case", SAME)
def test_each_is_the_single_edit(ready, case):
    prompts, options, wanted = SAME[case]
    grid, clips, labels, report = several(ready, prompts, **options)
    assert len(clips) == len(labels) == len(wanted)
    for found, of in zip(clips, wanted, strict=True):
        assert torch.equal(found, single(ready, **of))
    assert len(set(labels)) == len(labels)
    assert all(label in report for label in labels)
    assert grid.shape[0] == 2
    assert grid.shape[-1] == 3


def test_a_noise_mask_is_kept_to(ready):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 1
    masked = {**ready, "latent": {**ready["latent"], "noise_mask": mask}}
    (found,) = several(masked, GREEN)[1]
    assert torch.equal(found, single(masked, GREEN))
    assert not torch.equal(found, single(ready, GREEN))


def test_different_settings_are_different_edits(ready):
    _, clips, labels, _ = several(ready, f"{GREEN}\nshape: {STAR}", sweep="cfg", values="2, 6")
    assert [label.rpartition(", ")[2] for label in labels] == ["cfg 2", "cfg 6"] * 2
    assert not any(torch.equal(a, b) for i, a in enumerate(clips) for b in clips[:i])


def test_the_grid_shows_the_source_first(ready):
    with_source = several(ready, GREEN)[0]
    alone = run_without(ready, "source", GREEN)[0]
    assert with_source.shape[2] > 1.5 * alone.shape[2]
    drawn = with_source[:, -SIZE:]  # below the labels
    left, right = (half.mean((0, 1, 2)) for half in drawn.chunk(2, dim=2))
    red, green, _ = ready["source"].mean((0, 1, 2))
    assert (red > green) == (left[0] > left[1]) and right[0] < left[0]


def run_without(ready, name, prompts, **options):
    return several({k: v for k, v in ready.items() if k != name}, prompts, **options)


BAD = {
    "nothing": ("\n # a comment\n", {}, "prompts is empty"),
    "a kind alone": ("shape:", {}, "no prompt after shape"),
    "no values": (GREEN, {"sweep": "cfg"}, "write the numbers that cfg shall take, such as 3, 5, 7.5"),
    "words for values": (GREEN, {"sweep": "seed", "values": "1, two"}, "numbers that seed shall take"),
    "half a seed": (GREEN, {"sweep": "seed", "values": "1.5"}, "numbers that seed shall take"),
    "a seed below 0": (GREEN, {"sweep": "seed", "values": "-1"}, "numbers that seed shall take"),
    "too large a seed": (GREEN, {"sweep": "seed", "values": str(2**64)}, "numbers that seed shall take"),
    "no number at all": (GREEN, {"sweep": "cfg", "values": "nan"}, "numbers that cfg shall take"),
    "no end of cfg": (GREEN, {"sweep": "cfg", "values": "3, inf"}, "numbers that cfg shall take"),
    "cfg below 0": (GREEN, {"sweep": "cfg", "values": "-3"}, "numbers that cfg shall take"),
    "too strong": (GREEN, {"sweep": "strength", "values": "1, 2"}, "strength is 2"),
    "too large a share": (GREEN, {"sweep": "cross_share", "values": "3"}, "cross share is 3"),
    "a share of nothing": (f"without control: {GREEN}", {"sweep": "cross_share", "values": "1"}, "has none"),
    "the last line": (f"{GREEN}\n{CAPTION}", {}, f"{CAPTION}, appearance: Caption and prompt are the same words"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_before_the_first_step(ready, case, monkeypatch):
    monkeypatch.setattr(pack("nodes.host.sampling.run"), "sample", lambda *args, **options: pytest.fail("a step"))
    prompts, options, message = BAD[case]
    with pytest.raises(EI2Error, match=message):
        several(ready, prompts, **options)


@pytest.mark.parametrize("done", [0, 1])
def test_what_stops_keeps_what_is_done(ready, done, monkeypatch, folders):
    from comfy.model_management import InterruptProcessingException

    sampling, left = pack("nodes.host.sampling.run"), [None] * done
    original = sampling.sample

    def sample(*args, **options):
        if not left:
            raise InterruptProcessingException
        left.pop()
        return original(*args, **options)

    monkeypatch.setattr(sampling, "sample", sample)
    with pytest.raises(InterruptProcessingException):
        several(ready, f"{GREEN}\n{YELLOW}\nshape: {STAR}")
    kept = sorted(Path(folders, "output").rglob("*.mp4"))
    assert [path.name for path in kept] == ["EI2_edits_stopped_00001_.mp4"] * done


def test_a_full_disk_does_not_hide_why_it_stopped(ready, monkeypatch, caplog, folders):
    from comfy.model_management import InterruptProcessingException

    monkeypatch.setattr(pack("nodes.host.several_edits.run").EditRun, "execute", stopping)
    fault = EI2Error("The video cannot be written: no space left on device.")
    monkeypatch.setattr(
        pack("nodes.several_edits").looping_video, "save_video", lambda *args: (_ for _ in ()).throw(fault)
    )
    with pytest.raises(InterruptProcessingException), caplog.at_level(logging.INFO):
        several(ready, GREEN)
    assert "no space left" in caplog.text


def stopping(run):
    from comfy.model_management import InterruptProcessingException

    run.images.append(torch.zeros(2, 8, 8, 3))
    raise InterruptProcessingException


@pytest.mark.parametrize(
    ("sweep", "values"),
    [("seed", [1234567, 1234568, 2**63 + 1, 2**63 + 2]), ("cfg", [7.1234567, 7.1234568]), ("strength", [0.5, 1.0])],
)
def test_no_two_edits_have_one_name(sweep, values):
    """The grid and the report tell them apart by it; a seed is what was written, to its last digit."""
    found = listing.listed(GREEN, "style", 3.0, 1.0, 0, sweep, ", ".join(map(str, values)))
    assert [getattr(edit, sweep) for edit in found] == values
    assert len({edit.name for edit in found}) == len(values)


@pytest.mark.parametrize(
    ("prompts", "sweep", "values", "count"),
    [
        (GREEN, "nothing", "", 1),
        ("\n".join(f"{GREEN} {i}" for i in range(50)), "seed", "1 2", 100),
        ("a\na", "cfg", "3 3", 1),
    ],
)
def test_as_many_as_are_asked_for(prompts, sweep, values, count):
    assert len(listing.listed(prompts, "style", 3.0, 1.0, 0, sweep, values)) == count
