"""Other nodes' guidance and step caches: out of inversion and tuning, at work in sampling, refused where they fail."""

import logging

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_apg, nodes_easycache, nodes_eps, nodes_fresca, nodes_lumina2, nodes_perpneg

from .mini import caption, clip, inflate, invert, model, pack, plain_sample, sample, tune
from .other_nodes import NODES, run_node

EI2Error = pack("ei2_modules.errors").EI2Error
STEPS = 12  # enough for a cache to skip some
SMALL = {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}


def overridden(m):
    """Another guidance at every step, by the way of a newer host's CFGOverride."""

    def predict_noise(executor, *args, **kwargs):
        guider = executor.class_obj
        before, guider.cfg = guider.cfg, 6.0
        try:
            return executor(*args, **kwargs)
        finally:
            guider.cfg = before

    m = m.clone()
    m.add_wrapper(WrappersMP.PREDICT_NOISE, predict_noise)
    return m


CACHES = {
    "EasyCache": lambda m: run_node(nodes_easycache.EasyCacheNode, m, 0.5, 0.0, 1.0, False),
    "LazyCache": lambda m: run_node(nodes_easycache.LazyCacheNode, m, 0.5, 0.0, 1.0, False),
}
ACTING_AT_1 = CACHES | {
    "APG": lambda m: run_node(nodes_apg.APG, m, 1.0, 5.0, 0.5),
    "EpsilonScaling": lambda m: run_node(nodes_eps.EpsilonScaling, m, 1.05),
    "PerpNeg": lambda m: run_node(nodes_perpneg.PerpNeg, m, caption(7), 1.0),
    "PerturbedAttentionGuidance": NODES["Perturbed-Attention Guidance"],
}
FAILING = {  # with more frames than one, on the plain model too
    "TemporalScoreRescaling": lambda m: run_node(nodes_eps.TemporalScoreRescaling, m, 0.95, 1.0),
    "RenormCFG": lambda m: run_node(nodes_lumina2.RenormCFG, m, 100.0, 1.0),
}
OTHERS = {"FreSca": lambda m: run_node(nodes_fresca.FreSca, m, 1.0, 1.25, 2), "overridden": overridden}


@pytest.fixture(scope="module")
def ready():
    """(inflated model, its inverted latent of 3 frames, that of 18)."""
    with torch.inference_mode():
        m = inflate(model(**SMALL))
        return m, invert(m, steps=STEPS)[0], invert(m, clip(18), steps=STEPS)[0]


@pytest.mark.parametrize("name", ACTING_AT_1 | FAILING | OTHERS)
def test_inversion_is_the_models_own(ready, name, caplog):
    """And so is the figure of the round trip; what was left out is named."""
    made = (ACTING_AT_1 | FAILING | OTHERS)[name](ready[0])
    with caplog.at_level(logging.INFO):
        noise, report = invert(made, steps=STEPS)
    assert torch.equal(noise["samples"], ready[1]["samples"])
    assert report == invert(ready[0], steps=STEPS)[1]
    assert f"left out of the inversion, which is without guidance: {name}." in caplog.text


@pytest.mark.parametrize("name", ACTING_AT_1)
def test_sampling_at_guidance_1_is_what_the_node_makes_of_it(ready, name):
    m, noise, _ = ready
    before, edited = sample(m, noise), sample(ACTING_AT_1[name](m), noise)
    assert edited.isfinite().all() and (edited - before).abs().max() > 1e-2
    assert torch.equal(sample(m, noise), before)


def learnt(m):
    """With a negative, which is for previews."""
    tensors = tune(m, steps=3, negative=caption(3), preview_every=1)[1].tensors
    return tensors.queries | tensors.temporal


@pytest.mark.parametrize("name", [*CACHES, "overridden", "PerturbedAttentionGuidance"])
def test_tuning_is_the_models_own(name, caplog):
    node, m = (ACTING_AT_1 | OTHERS)[name], model(**SMALL)
    expected, before = learnt(inflate(m)), plain_sample(m)
    with caplog.at_level(logging.INFO):
        for made in (node(inflate(m)), inflate(node(m))):
            assert all(torch.equal(t, expected[path]) for path, t in learnt(made).items())
    assert caplog.text.count(f"left out of the tuning, which is without guidance: {name}.") == 2
    assert torch.equal(plain_sample(m), before)


BY_CALL = {"EasyCache": CACHES["EasyCache"], "SelfAttentionGuidance": NODES["Self-Attention Guidance"]}


@pytest.mark.parametrize("name", BY_CALL)
@pytest.mark.parametrize("after", [True, False], ids=["after inflating", "before"])
def test_what_takes_one_window_for_the_next_is_refused(ready, name, after):
    m, few, many = ready
    made = BY_CALL[name](m) if after else inflate(BY_CALL[name](model(**SMALL)))
    with pytest.raises(EI2Error, match=f"{name} cannot work with a long clip: its 18 frames .* windows of 16"):
        sample(made, many, cfg=4.0)
    assert sample(made, few, cfg=4.0).isfinite().all()
    assert invert(made, clip(18), steps=2)[0]["samples"].isfinite().all(), "it is left out there"


@pytest.mark.parametrize("name", ["LazyCache", "APG", "PerturbedAttentionGuidance", "FreSca", "overridden"])
def test_what_sees_the_whole_clip_works_in_windows(ready, name):
    m, _, many = ready
    edited = sample((ACTING_AT_1 | OTHERS)[name](m), many, cfg=4.0)
    assert edited.isfinite().all() and (edited - sample(m, many, cfg=4.0)).abs().max() > 1e-2
