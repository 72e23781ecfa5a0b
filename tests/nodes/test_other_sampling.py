"""Nodes that set another rule or schedule of sampling: those that fit are used, the others are named."""

import comfy.model_sampling
import comfy_extras.nodes_model_advanced as stock
import pytest

from .mini import inflate, model, pack

EI2Error = pack("ei2_modules.errors").EI2Error
UNET = pack("nodes.host.inflating.unet")


def discrete(kind):
    return lambda m: stock.ModelSamplingDiscrete().patch(m, kind, False)[0]


def edm(kind):
    return lambda m: stock.ModelSamplingContinuousEDM().patch(m, kind, 120.0, 0.002)[0]


def lcm_on_all_timesteps(m):
    """As AnimateDiff-Evolved sets it when it is asked for 1000 original timesteps."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, stock.LCM):
        pass

    m = m.clone()
    m.add_object_patch("model_sampling", Sampling(m.model.model_config))
    return m


def of_no_kind(m):
    """A checkpoint of another kind: nothing was set."""
    flow = stock.ModelSamplingSD3().patch(m, 3.0)[0].object_patches["model_sampling"]
    m.model.model_sampling = flow
    return m


FITTING = {"eps": (discrete("eps"), "eps"), "v": (discrete("v_prediction"), "v"), "none": (lambda m: m, "eps")}
NODES = {
    "LCM": (discrete("lcm"), "LCM on ModelSamplingDiscreteDistilled with 50 timesteps"),
    "LCM on all timesteps": (lcm_on_all_timesteps, "LCM on ModelSamplingDiscrete with 1000 timesteps"),
    "x0": (discrete("x0"), "X0 on ModelSamplingDiscrete with 1000 timesteps"),
    "image to image": (discrete("img_to_img"), "IMG_TO_IMG on ModelSamplingDiscrete with 1000 timesteps"),
    "EDM": (edm("edm"), "EDM on ModelSamplingContinuousEDM with 1000 timesteps"),
    "eps on the EDM schedule": (edm("eps"), "EPS on ModelSamplingContinuousEDM with 1000 timesteps"),
    "flow": (
        lambda m: stock.ModelSamplingSD3().patch(m, 3.0)[0],
        "CONST on ModelSamplingDiscreteFlow with 1000 timesteps",
    ),
}


@pytest.mark.parametrize("case", FITTING.values(), ids=FITTING)
def test_what_fits_is_used(case):
    node, prediction = case
    assert UNET.describe(node(model())).prediction == prediction


@pytest.mark.parametrize("case", NODES.values(), ids=NODES)
@pytest.mark.parametrize("where", ["before Inflate", "behind Inflate"])
def test_a_node_that_does_not_fit_is_named_and_so_is_what_the_checkpoint_has(case, where):
    node, words = case
    has = r"Take that node out .*: EPS on ModelSamplingDiscrete with 1000 timesteps"
    with pytest.raises(EI2Error, match=rf"ModelSampling node .* to {words}: .*{has}"):
        if where == "before Inflate":
            inflate(node(model()))
        else:
            pack("nodes.host.inflating.inflate").inflated_of(node(inflate(model())), "One-Shot Tune")


def test_a_checkpoint_that_does_not_fit_is_told_from_a_node():
    words = "CONST on ModelSamplingDiscreteFlow with 1000 timesteps"
    with pytest.raises(EI2Error, match=f"This model predicts by {words}: .*Load a checkpoint"):
        inflate(of_no_kind(model()))
    with pytest.raises(EI2Error, match=f"to X0 on .*The checkpoint's own, {words}, is no other"):
        inflate(discrete("x0")(of_no_kind(model())))
