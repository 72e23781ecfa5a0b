"""What other nodes do to the model between ours: it is seen, and either works or is refused before any work."""

import logging

import pytest
import torch

from .mini import caption, inflate, invert, model, pack, run, sample, tune

EI2Error = pack("ei2_modules.errors").EI2Error


def with_sampling(m, kind):
    """The stock node ModelSamplingDiscrete."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(m, kind, zsnr=False)[0]


def test_a_prediction_type_set_after_inflating_is_seen():
    """Tuned, inverted and sampled as v from then on, exactly as when it was set before."""
    after = with_sampling(inflate(model()), "v_prediction")
    before = inflate(with_sampling(model(), "v_prediction"))
    (tuned, weights, _), (_, reference, _) = tune(after), tune(before)
    assert weights.header.prediction == "v"
    for path, delta in reference.tensors.queries.items():
        assert torch.equal(weights.tensors.queries[path], delta)
    latent = invert(tuned)[0]
    assert latent[pack("nodes.host.sampling.record").RECORD].prediction == "v"


def lcm():
    return with_sampling(inflate(model()), "lcm")


@pytest.mark.parametrize("node", [tune, invert])
def test_a_schedule_that_is_not_stable_diffusions_is_refused(node):
    with pytest.raises(EI2Error, match=r"50 timesteps.*1000-step"):
        node(lcm())


def test_attention_replaced_after_inflating_is_refused_for_tuning():
    m = inflate(model()).clone()
    m.set_model_attn1_replace(lambda q, k, v, extra_options: v, "middle", 0)
    with pytest.raises(EI2Error, match=r"self-attention of 1 blocks \(first middle 0\)"):
        tune(m)
    tuned = tune(inflate(model()))[0].clone()
    tuned.set_model_attn1_replace(lambda q, k, v, extra_options: v, "middle", 0)
    assert torch.isfinite(sample(tuned, invert(tuned)[0])).all(), "behind the tuning it is the user's own choice"


def limited(**options):
    return [[caption()[0][0], options]]


LIMITED = {
    "a timestep range": limited(start_percent=0.0, end_percent=0.5),
    "a late start": limited(start_percent=0.2, end_percent=1.0),
    "an area": limited(area=(4, 4, 0, 0)),
    "a mask": limited(mask=torch.ones(1, 64, 64)),
    "a strength of 0": limited(strength=0.0),
    "the second of two": caption() + limited(area=(4, 4, 0, 0)),
}


@pytest.mark.parametrize("positive", LIMITED.values(), ids=LIMITED)
def test_captions_that_cover_only_a_part_are_refused_for_tuning(positive):
    with pytest.raises(EI2Error, match=f"entry {len(positive)} of {len(positive)}.*does not train with"):
        tune(inflate(model()), positive=positive)


@pytest.mark.parametrize("options", [{}, {"start_percent": 0.0, "end_percent": 1.0}, {"strength": 0.5}])
def test_captions_that_cover_everything_are_taken(options):
    assert len(tune(inflate(model()), positive=limited(**options), steps=1)[2]["loss"]) == 1


OTHER_MODELS = {
    "another checkpoint": (lambda: inflate(model(seed=9)), "another checkpoint"),
    "another prediction type": (lambda: inflate(model("v")), "inverted with eps-prediction.*v-prediction"),
}


@pytest.mark.parametrize("case", OTHER_MODELS.values(), ids=OTHER_MODELS)
@pytest.mark.parametrize("node", ["EI2Sampler", "EI2DDIMSampler"])
def test_noise_of_another_model_is_refused(node, case):
    other, message = case
    latent = invert(inflate(model()))[0]
    with pytest.raises(EI2Error, match=message):
        if node == "EI2Sampler":
            sample(other(), latent)
        else:
            run("sampler.EI2DDIMSampler", model=other(), latent=latent, seed=0, eta=0.0)


def test_noise_of_the_same_checkpoint_tuned_otherwise_is_taken():
    m = model()
    latent = invert(inflate(m))[0]
    assert torch.isfinite(sample(inflate(m, "Tune-A-Video"), latent)).all()


def test_another_coarse_ratio_is_said(caplog):
    m = model()
    weights = tune(inflate(m))[1]
    with caplog.at_level(logging.WARNING):
        inflate(m, weights=weights)
        assert "coarse ratio" not in caplog.text
        inflate(m, weights=weights, coarse_ratio=4)
    assert "tuned at coarse ratio 2 and run at 4" in caplog.text
