"""Checkpoints whose weights are no plain tensors: as ComfyUI-GGUF keeps them, and as the host quantises them."""

import pytest
import torch
from mini import inflate, model, plain_sample, tune


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
