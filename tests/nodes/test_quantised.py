"""Checkpoints whose weights are no plain tensors: as ComfyUI-GGUF keeps them, and as the host quantises them."""

import re
from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import comfy.utils
import pytest
import torch

from .mini import inflate, invert, model, pack, plain_sample, sample, tune

EI2Error = pack("ei2_modules.errors").EI2Error


class Stubborn(torch.Tensor):
    """As the tensors of ComfyUI-GGUF: every copy that a program asks for is the tensor itself."""

    def clone(self, *args, **kwargs):
        return self

    def detach(self):
        return self


def stubborn(m):
    """The same model, all weights of that class."""
    for module in m.model.diffusion_model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = torch.nn.Parameter(p.data.as_subclass(Stubborn), requires_grad=False)
    return m


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_tuning_copies_what_the_weights_class_will_not(stored):
    expected = tune(inflate(model(stored=stored)))[1].tensors.queries
    m = stubborn(model(stored=stored))
    before = {name: p.to(torch.float32, copy=True) for name, p in m.model.diffusion_model.named_parameters()}
    tuned, weights, _ = tune(inflate(m))
    assert all(torch.equal(weights.tensors.queries[path], difference) for path, difference in expected.items())
    assert all(difference.any() for difference in expected.values())
    assert not torch.equal(plain_sample(tuned), plain_sample(inflate(m)))
    assert all(torch.equal(p.float(), before[name]) for name, p in m.model.diffusion_model.named_parameters())


def eight_bits(w):
    """Rows of whole numbers and the scale of each."""
    scale = w.abs().amax(1, keepdim=True) / 127
    return (w / scale).round().to(torch.int8), scale


class Converting(torch.nn.Module):
    """As the host's layers for scaled fp8: the weight alone is off by its scales, and the layer converts it."""

    def __init__(self, w):
        super().__init__()
        self.out_features, self.in_features = w.shape
        self.scale = w.abs().amax(1, keepdim=True) / 448
        self.weight = torch.nn.Parameter((w / self.scale).to(torch.float8_e4m3fn), requires_grad=False)

    def convert_weight(self, weight, inplace=False):
        return weight.float() * self.scale

    def forward(self, x):
        return x @ self.convert_weight(self.weight).T


class Wrapped(torch.Tensor):
    """As the host's QuantizedTensor: it says it were fp32, and is made of others."""

    @staticmethod
    def __new__(cls, rows, scale):
        return torch.Tensor._make_wrapper_subclass(cls, rows.shape, dtype=torch.float32)

    def __init__(self, rows, scale):
        self.rows, self.scale = rows, scale

    def __tensor_flatten__(self):
        return ["scale", "rows"], None

    def dequantize(self):
        return self.rows.float() * self.scale

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        assert func.overloadpacket in (aten.detach, aten.to, aten._to_copy, aten.clone), func
        return cls(args[0].rows, args[0].scale)


class Dequantising(torch.nn.Module):
    """Its weight is such a tensor."""

    def __init__(self, w):
        super().__init__()
        self.out_features, self.in_features = w.shape
        self.weight = torch.nn.Parameter(Wrapped(*eight_bits(w)), requires_grad=False)

    def forward(self, x):
        return x @ self.weight.dequantize().T


class Blocks(torch.Tensor):
    """As ComfyUI-GGUF's tensors: bytes that say they had the shape of what they stand for, and carry patches."""

    shape = property(lambda self: self.stands_for)


class Casting(torch.nn.Module):
    """As ComfyUI-GGUF's layers, which unpack and patch by themselves."""

    def __init__(self, w):
        super().__init__()
        self.out_features, self.in_features = w.shape
        rows, scale = eight_bits(w)
        packed = torch.cat([scale.half().view(torch.uint8), rows.view(torch.uint8)], 1).as_subclass(Blocks)
        packed.stands_for, packed.tensor_type, packed.patches = w.shape, SimpleNamespace(name="Q8_0"), []
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        for name in ("stands_for", "tensor_type", "patches"):
            setattr(self.weight, name, getattr(packed, name))

    def cast_bias_weight(self, input=None, dtype=None, device=None):
        packed = self.weight.as_subclass(torch.Tensor)
        scale, rows = packed[:, :2].contiguous().view(torch.float16), packed[:, 2:].contiguous().view(torch.int8)
        w = rows.to(dtype) * scale.to(dtype)
        return sum(self.weight.patches, w), None

    def forward(self, x):
        return x @ self.cast_bias_weight(dtype=x.dtype)[0].T


class Computing(torch.nn.Module):
    """As layers of other packs: how they unpack their weight nobody can see."""

    def __init__(self, w):
        super().__init__()
        self.out_features, self.in_features = w.shape
        self.rows, self.scale = eight_bits(w)
        self.weight = torch.nn.Parameter(self.rows.view(torch.uint8).reshape(-1, 1), requires_grad=False)

    def forward(self, x):
        return x @ (self.rows.float() * self.scale).T


def with_layers(m, kind, names=(".to_k", ".to_q")):
    """The same model, its keys and queries in such layers."""
    unet = m.model.diffusion_model
    for path in [p for p, _ in unet.named_modules() if p.endswith(names)]:
        parent, _, name = path.rpartition(".")
        setattr(unet.get_submodule(parent), name, kind(unet.get_submodule(path).weight.data))
    return m


def loaded_in(dtype):
    return lambda seed: model(seed=seed, stored=dtype)


QUANTISED = {
    "fp8 by weight_dtype": (loaded_in(torch.float8_e4m3fn), r"float8_e4m3fn \(8 bits"),
    "fp8 with a wide range": (loaded_in(torch.float8_e5m2), r"float8_e5m2 \(8 bits"),
    "scaled fp8": (lambda seed: with_layers(model(seed=seed), Converting), r"float8_e4m3fn \(8 bits"),
    "tensors that dequantise": (lambda seed: with_layers(model(seed=seed), Dequantising), r"int8 \([\d.]+ bits"),
    "GGUF": (lambda seed: with_layers(model(seed=seed), Casting), r"Q8_0 \(8\.\d* bits"),
    "layers that compute": (lambda seed: with_layers(model(seed=seed), Computing), r"uint8 \(8 bits"),
}


@pytest.fixture(scope="module")
def weights():
    with torch.inference_mode():
        return tune(inflate(model()))[1]


@pytest.mark.parametrize("case", QUANTISED.values(), ids=QUANTISED)
def test_the_checkpoint_that_was_tuned_is_known_when_it_is_quantised(case, weights, caplog):
    make, stored = case
    inflated = inflate(make(0), weights=weights)
    (note,) = re.findall(rf"stored as {stored}.*distance ([\d.]+), allowed ([\d.]+)", caplog.text)
    assert 0 < float(note[0]) < float(note[1]) < 0.4
    with pytest.raises(EI2Error, match=rf"another SD15 checkpoint.* for a model stored as {stored}.*allow_mismatch"):
        inflate(make(1), weights=weights)
    with pytest.raises(EI2Error, match=rf"stored as {stored}.*Load the checkpoint in fp16"):
        tune(inflated)


@pytest.mark.parametrize("case", QUANTISED.values(), ids=QUANTISED)
def test_an_inversion_is_known_by_the_quantised_model_and_that_is_said(case, caplog):
    inverted, unet = pack("nodes.host.sampling.inverted"), pack("nodes.host.inflating.inflate")
    full, coarse = (unet.inflated_of(inflate(m), "") for m in (model(), case[0](0)))
    record = inverted.Inversion(5, 1.0, "eps", full.fingerprint, [])
    assert inverted._other_model(record, full) is None and "quite as it was" not in caplog.text
    assert inverted._other_model(record, coarse) is None and "will not come back quite as it was" in caplog.text
    other = unet.inflated_of(inflate(case[0](1)), "")
    assert inverted._other_model(record, other).startswith("another checkpoint")


def test_patches_that_a_layer_puts_on_by_itself_are_not_the_checkpoints():
    """ComfyUI-GGUF keeps LoRAs on the tensor while they are loaded, where the host backs nothing up."""
    m = with_layers(model(), Casting)
    before = fingerprint_of(m)
    for layer in (layer for layer in m.model.modules() if isinstance(layer, Casting)):
        layer.weight.patches.append(torch.randn(layer.out_features, layer.in_features))
    assert fingerprint_of(m) == before
    assert all(len(layer.weight.patches) == 1 for layer in m.model.modules() if isinstance(layer, Casting))


@pytest.mark.parametrize("kind", [Converting, Dequantising, Casting])
def test_weights_that_say_what_they_mean_are_not_computed_with(kind, caplog, monkeypatch):
    """To run a layer on an identity takes seconds for all of SDXL's, and the host's may round what goes in."""
    monkeypatch.setattr(kind, "forward", lambda self, x: 1 / 0)
    fingerprint_of(with_layers(model(), kind))
    assert "could not be read" not in caplog.text


@pytest.mark.parametrize("kind", [Converting, Dequantising, Casting, Computing])
def test_packed_weights_beside_the_queries_stay_packed_while_tuning(kind):
    """A file may quantise the large layers alone: what is trained is whole, and the rest is only read."""
    m = with_layers(model(), kind, (".to_v", ".to_k"))
    layers = [layer for layer in m.model.modules() if isinstance(layer, kind)]
    before = [layer.weight for layer in layers]
    weights = tune(inflate(m))[1]
    assert all(difference.any() for difference in weights.tensors.queries.values())
    assert all(type(layer.weight) is type(weight) for layer, weight in zip(layers, before, strict=True))
    inflate(m, weights=weights)


def test_a_layer_that_cannot_be_read_is_said_and_no_obstacle(caplog):
    m = with_layers(model(), Computing)
    broken = m.get_model_object("diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k")
    forward, broken.forward = broken.forward, lambda x: 1 / 0
    inflate(m)
    assert "attn2.to_k.weight, stored as uint8 (8 bits a number), could not be read: division by zero" in caplog.text
    broken.forward = forward


def fingerprint_of(m):
    unet = pack("nodes.host.inflating.unet")
    return unet.base_fingerprint(m, unet.describe(m))


def saved_and_loaded(m):
    """What ModelSave writes, as a checkpoint of its own: weights with all patches, and nothing beside them."""
    comfy.model_management.load_models_gpu([m], force_patch_weights=True)
    state = {name: t.clone() for name, t in m.model.diffusion_model.state_dict().items()}
    comfy.model_management.unload_all_models()
    new = model()
    new.model.diffusion_model.load_state_dict(state)
    return new


def test_a_tuned_model_that_was_saved_whole_does_not_take_its_weights_twice(weights, caplog):
    saved = saved_and_loaded(inflate(model(), weights=weights))
    with pytest.raises(EI2Error, match="queries of these very weights are in this checkpoint already"):
        inflate(saved, weights=weights)
    with pytest.raises(EI2Error, match="queries of these very weights are in this checkpoint already"):
        tune(inflate(saved), weights=weights)
    inflate(saved, weights=weights, allow_mismatch=True)
    assert "queries of these very weights are in this checkpoint already" in caplog.text


def test_nor_those_of_another_tuning(weights):
    others = tune(inflate(model()), seed=1)[1]
    with pytest.raises(EI2Error, match=r"on this SD15 checkpoint with other queries: .*\(distance 0.000\)"):
        inflate(saved_and_loaded(inflate(model(), weights=others)), weights=weights)


def test_a_latent_inverted_before_it_was_saved_is_not_taken_for_its_own(weights):
    latent = invert(inflate(model(), weights=weights))[0]
    saved = inflate(saved_and_loaded(inflate(model(), weights=weights)))
    with pytest.raises(EI2Error, match="inverted with another checkpoint"):
        sample(saved, latent)


def test_allow_mismatch_lets_weights_of_another_checkpoint_through_and_tunes_on(weights, caplog):
    carried = inflate(model(seed=1), weights=weights, allow_mismatch=True)
    assert caplog.text.count("another SD15 checkpoint") == 1
    assert not torch.equal(plain_sample(carried), plain_sample(inflate(model(seed=1))))
    on = tune(carried, steps=1)[1]
    assert caplog.text.count("another SD15 checkpoint") == 2
    inflate(model(seed=1), weights=on)
    assert caplog.text.count("another SD15 checkpoint") == 2, "what was tuned on it is its own"


def by_load_lora(m, weights, folders, strength=1.0):
    """The stock node on the file that Save EI² Weights wrote: it reads the query part."""
    path = pack("nodes.host.files.weights_folder").save(weights, "clip", "output/ei2")
    return comfy.sd.load_lora_for_models(m, None, comfy.utils.load_torch_file(str(path), safe_load=True), strength, 0)[
        0
    ]


def test_weights_that_a_lora_loader_put_on_already_are_not_taken_twice(weights, folders, caplog):
    doubled = by_load_lora(model(), weights, folders)
    for refused in (lambda: inflate(doubled, weights=weights), lambda: tune(inflate(doubled), weights=weights)):
        with pytest.raises(
            EI2Error, match="Another node, such as Load LoRA, has put the queries of these very weights"
        ):
            refused()
    inflate(doubled, weights=weights, allow_mismatch=True)
    assert "such as Load LoRA, has put the queries of these very weights" in caplog.text
    others = by_load_lora(model(), tune(inflate(model()), seed=1)[1], folders)
    inflate(inflate(others, weights=weights), weights=weights)
