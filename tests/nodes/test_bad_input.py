"""Every wrong input: an error with the numbers and the fix, before any work, and nothing changed."""

import comfy.supported_models
import pytest
import torch

from .mini import caption, clip, inflate, invert, model, pack, plain_sample, run, sample, tune

EI2Error = pack("ei2_modules.errors").EI2Error


def flow():
    import comfy.model_sampling

    class ModelSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    m = model().clone()
    m.add_object_patch("model_sampling", ModelSampling())
    return m


def with_value(value):
    latents = clip()
    latents["samples"] = latents["samples"].clone()
    latents["samples"][1, 0, 0, 0] = value
    return latents


@pytest.fixture(scope="module")
def ready():
    """(inflated model, inverted latent, tuned weights)."""
    with torch.inference_mode():
        m = inflate(model())
        return m, invert(m, steps=5)[0], tune(m, steps=1)[1]


WRONG_MODELS = {
    "a flow model": (lambda: inflate(flow()), "eps- or v-prediction"),
    "tuning a plain model": (lambda: tune(model()), "One-Shot Tune needs an inflated model.*Inflate UNet"),
    "inverting with a plain model": (lambda: invert(model()), "DDIM Invert Video needs an inflated model"),
    "sampling with a plain model": (lambda: sample(model(), clip()), "EI² Sampler needs an inflated model"),
}
WRONG_LATENTS = {
    "no frames": (lambda: clip(0), "0 frames"),
    "16 channels": (lambda: clip(channels=16), "16 channels.*takes 4"),
    "a video latent": (lambda: {"samples": torch.zeros(1, 4, 3, 8, 8)}, r"shape \(1, 4, 3, 8, 8\)"),
    "NaN": (lambda: with_value(float("nan")), "not finite"),
    "infinite": (lambda: with_value(float("inf")), "not finite"),
}  # fmt: skip
WRONG_TEXT = {
    "empty": (lambda: [], "positive conditioning is empty"),
    "of another family": (lambda: caption(width=96), "96 wide.*takes 64"),
}


@pytest.mark.parametrize("case", WRONG_MODELS.values(), ids=WRONG_MODELS)
def test_wrong_models(case):
    attempt, message = case
    with pytest.raises(EI2Error, match=message):
        attempt()


@pytest.mark.parametrize("node", [tune, invert, sample])
@pytest.mark.parametrize("case", WRONG_LATENTS.values(), ids=WRONG_LATENTS)
def test_wrong_latents(ready, node, case):
    latents, message = case
    with pytest.raises(EI2Error, match=message):
        node(ready[0], latents())


def execute(node, m, latent, text):
    inputs = {"tune": (clip(), text), "invert": (clip(), text), "sample": (latent, text)}[node]
    # run() and not the helpers: an empty list is what is being tested
    if node == "tune":
        run("one_shot_tune.OneShotTune", model=m, latents=inputs[0], positive=text, steps=1, learning_rate=1e-3, seed=1,
            precision="auto", gradient_checkpointing="auto")  # fmt: skip
    elif node == "invert":
        run("invert_video.InvertVideo", model=m, latents=inputs[0], positive=text, steps=2, fixed_point_iterations=0)
    else:
        run("sampler.EI2Sampler", model=m, positive=text, negative=caption(), latent=latent, cfg=1.0, seed=0, eta=0.0)


@pytest.mark.parametrize("node", ["tune", "invert", "sample"])
@pytest.mark.parametrize("case", WRONG_TEXT.values(), ids=WRONG_TEXT)
def test_wrong_conditioning(ready, node, case):
    text, message = case
    with pytest.raises(EI2Error, match=message):
        execute(node, ready[0], ready[1], text())


STEPS = {
    "tuning": (lambda m, n: tune(m, steps=0), "steps is 0"),
    "inversion": (lambda m, n: invert(m, steps=0), "steps is 0"),
    "inversion, too many": (lambda m, n: invert(m, steps=501), "steps is 501"),
    "another inversion length": (lambda m, n: sample(m, n, steps=20), "inverted in 5 steps.*20.*11.03"),
    "a clip that was never inverted": (lambda m, n: sample(m, clip()), "does not come from DDIM Invert Video"),
    "never inverted, steps given": (lambda m, n: sample(m, clip(), steps=50), "spread of .* is not inverted noise"),
    "learning rate 0": (lambda m, n: tune(m, learning_rate=0.0), "learning rate is 0"),
}


@pytest.mark.parametrize("case", STEPS.values(), ids=STEPS)
def test_wrong_steps(ready, case):
    attempt, message = case
    with pytest.raises(EI2Error, match=message):
        attempt(*ready[:2])


WRONG_WEIGHTS = {
    "another checkpoint": (lambda: model(seed=9), {}, "another SD15 checkpoint"),
    "another width": (lambda: model(model_channels=64), {}, "7 blocks 32/64 wide.*7 blocks 64/128 wide"),
    "another depth": (lambda: model(channel_mult=[1], num_res_blocks=[1], transformer_depth=[1],
                                    transformer_depth_output=[1, 1]), {}, "7 blocks.*4 blocks"),
    "another prediction": (lambda: model("v"), {}, "eps-prediction.*v-prediction"),
    "another family": (lambda: model(family=comfy.supported_models.SD20, num_head_channels=-1), {}, "SD15.*SD20"),
    "another temporal module": (model, {"mode": "custom", "temporal_module": "layer norm"}, "'STAM'.*'layer norm'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_weights_for_another_model(ready, case):
    other, options, message = case
    with pytest.raises(EI2Error, match=message):
        inflate(other(), weights=ready[2], **options)


def test_going_on_from_weights_of_another_model(ready):
    with pytest.raises(EI2Error, match="another SD15 checkpoint"):
        tune(inflate(model(seed=9)), weights=ready[2])


NAMES = [
    "",
    " ",
    "a/b",
    "a\\b",
    "..",
    "../x",
    "/etc/passwd",
    "C:\\x",
    ".hidden",
    "a..b",
    "x" * 201,
    "a\nb",
    "a\0b",
    "con?",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_leave_the_folder(ready, folders, name):
    node = pack("nodes.tuned_weights").SaveWeights
    assert isinstance(node.validate_inputs(name), str), "a red node before anything runs"
    with pytest.raises(EI2Error, match="cannot be a file name"):
        node.execute(ready[2], name, "output/ei2")
    assert not list(folders.rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["no.safetensors", "../x.safetensors", "/etc/passwd"])
def test_loading_what_is_not_there(folders, name):
    with pytest.raises(EI2Error, match="neither output/ei2 nor models/ei2"):
        run("tuned_weights.LoadWeights", file_name=name)


def test_a_plain_model_is_as_before_after_every_refusal(ready):
    m = model()
    before = plain_sample(m)
    for attempt in (lambda: tune(m), lambda: inflate(m, weights=ready[2], mode="dense"), lambda: invert(m)):
        with pytest.raises(EI2Error):
            attempt()
    assert torch.equal(plain_sample(m), before)


def test_the_type_of_an_error_names_no_folder():
    """In the editor's report of a failed run."""
    import execution

    errors = pack("ei2_modules.errors")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 4 and [execution.full_type_name(kind) for kind in kinds] == [kind.__name__ for kind in kinds]
