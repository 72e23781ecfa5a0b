"""ComfyUI-GGUF: models whose weights are tensors of its own class, which may be quantised."""

import pytest
import torch

from tools.demo import random_weights
from tools.server.in_process import host, pack

from ...nodes.mini import caption, inflate, plain_sample, tune
from ..edit import apart, refused
from ..loading import node

EXACT, QUANTISED = ["F16", "F32"], ["Q8_0", "Q5_0"]


@pytest.fixture(scope="session")
def weights():
    """(of a small UNet that the host takes for SD1.x, of another)"""
    unet = random_weights._unet(random_weights.SD1, [1, 1]).state_dict()
    found = []
    for seed in (33, 5):
        torch.manual_seed(seed)
        found.append({name: random_weights._random(name, tensor) for name, tensor in unet.items()})
    return found


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A function: writes weights as a file of this type and loads it with the pack's node."""

    def through_a_file(tensors, kind):
        write(tmp_path / f"{kind}.gguf", tensors, kind)
        paths = host("folder_paths").folder_names_and_paths
        for folder in ("unet_gguf", "unet", "diffusion_models"):
            monkeypatch.setitem(paths, folder, ([str(tmp_path)], {".gguf"}))
        return node("UnetLoaderGGUF", unet_name=f"{kind}.gguf")[0]

    return through_a_file


def write(path, tensors, kind) -> None:
    """Matrices in this type, all else as the pack's converter leaves it."""
    import gguf

    quantum, writer = gguf.GGMLQuantizationType[kind], gguf.GGUFWriter(path, "sd1")
    for name, tensor in tensors.items():
        array = tensor.float().numpy()
        fits = array.ndim == 2 and array.shape[1] % 32 == 0
        stored = quantum if fits or (kind in EXACT and array.ndim > 1) else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(array, stored), raw_dtype=stored)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


def stock(tensors):
    """The same model from the host's own loader, in fp16."""
    return host("comfy.sd").load_diffusion_model_state_dict({name: tensor.half() for name, tensor in tensors.items()})


def text(seed=1):
    return caption(seed, 768)


def moved(m, record_property) -> None:
    """Tuning moves every query, and the tuned model is another."""
    tuned, learnt, losses = tune(m, positive=text(), steps=2)
    still = [name for name, tensor in learnt.tensors.queries.items() if not tensor.any()]
    record_property("queries that did not move:", f"{len(still)} of {len(learnt.tensors.queries)}")
    assert not still and torch.tensor(losses["loss"]).isfinite().all()
    assert not torch.equal(plain_sample(tuned, text=text, steps=1), plain_sample(m, text=text, steps=1))


@pytest.mark.parametrize("kind", EXACT)
def test_tuning(kind, weights, stored, record_property):
    """Tuning on a file of {kind}: every query moves, and the tuned model is another"""
    moved(inflate(stored(weights[0], kind)), record_property)


@pytest.mark.parametrize("kind", QUANTISED)
def test_tuning_quantised(kind, weights, stored, record_property):
    """Tuning on a file of {kind}: every query moves, or it is refused in words"""
    m = inflate(stored(weights[0], kind))
    said = refused(lambda: moved(m, record_property))
    if said:
        record_property("refused:", said)


@pytest.mark.parametrize("kind", EXACT + QUANTISED)
def test_weights_fit(kind, weights, stored, record_property):
    """Weights tuned on the fp16 checkpoint: taken for the same one as {kind}"""
    tuned, learnt, _ = tune(inflate(stock(weights[0])), positive=text(), steps=1)
    there = inflate(stored(weights[0], kind), weights=learnt)
    off = apart(plain_sample(there, text=text, steps=1), plain_sample(tuned, text=text, steps=1))
    record_property("sample apart by", f"{off:.1e}")
    assert off < 0.1  # of 5 bits


def test_another_checkpoint(weights, stored):
    """Weights tuned on the fp16 checkpoint: refused for another one as Q8_0"""
    _, learnt, _ = tune(inflate(stock(weights[0])), positive=text(), steps=1)
    with pytest.raises(pack("ei2_modules.errors").EI2Error, match="another"):
        inflate(stored(weights[1], "Q8_0"), weights=learnt)
