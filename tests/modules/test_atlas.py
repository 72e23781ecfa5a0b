"""The atlas as a value: what is drawn from it, edits over a clip, and its file."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from ei2_modules.atlas import file
from ei2_modules.atlas.atlas import Atlas, Layer
from ei2_modules.atlas.checks import checked_clip, fingerprint
from ei2_modules.atlas.maps import Maps
from ei2_modules.atlas.texture import Box
from ei2_modules.errors import EI2Error, WeightsError

N, SIZE = 5, (8, 12)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def layer(seed, bent=True):
    """A layer that goes a pixel to the right with every frame."""
    affine = torch.eye(3)[:2].repeat(N, 1, 1)
    affine[:, 0, 2] = -torch.arange(N) / 6
    offsets = 0.02 * rand(N, 2, 5, 6, seed=seed) if bent else None
    box = Box(-2.0, -0.8, 1.2, 0.8, 10, 20)
    return Layer(Maps(affine, offsets), box, rand(3, 10, 20, seed=seed), rand(10, 20, seed=seed) > 0.3)


def atlas(layers=2, lit=True):
    alphas = tuple((255 * rand(N, 1, *SIZE, seed=k)).byte() for k in range(layers - 1))
    gains = 0.1 * rand(N, 3, 4, 5) if lit else None
    return Atlas(SIZE, tuple(layer(k, bent=k < 2) for k in range(layers)), alphas, gains, "abc")


def drawn(value):
    return torch.cat([value.render(frames) for frames in value.chunks()])


def parts(value):
    yield from value.alphas
    yield from () if value.gains is None else (value.gains,)
    for one in value.layers:
        found = one.maps.affine, one.maps.offsets, one.texture, one.observed, one.edited
        yield from (part for part in found if part is not None)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_lie_over_each_other(layers):
    """Against painting from the back to the front."""
    value = atlas(layers)
    for t in range(N):
        picture = value.sample([t], -1)
        for k in reversed(range(layers - 1)):
            alpha = value.alphas[k][[t]].float() / 255
            picture = alpha * value.sample([t], k) + (1 - alpha) * picture
        assert torch.allclose(value.render([t]), (picture * value.light([t])).clamp(0, 1), atol=1e-6)
        assert torch.allclose(sum(value.seen([t])), torch.ones(1, 1, *SIZE))


def test_frames_may_be_taken_in_any_order():
    value = atlas()
    assert list(value.chunks()) == [[0, 1, 2, 3], [4]]
    assert torch.allclose(value.render([3, 0]), drawn(value)[[3, 0]], atol=1e-6)


def test_what_is_not_edited_stays_the_clips_own():
    value, clip = atlas(), rand(N, 3, *SIZE, seed=9)
    mask = torch.zeros(10, 20)
    mask[3:6, 8:12] = 1
    edited = value.with_layer(0, value.layers[0].replaced(torch.ones(3, 10, 20), mask))
    assert value.layers[0].edited is None and not torch.equal(edited.layers[0].texture, value.layers[0].texture)
    assert torch.equal(value.over(clip, range(N)), clip)
    found = edited.over(clip, list(range(N)))
    share = edited.seen(list(range(N)))[0] * edited.sample(list(range(N)), 0, mask[None])
    untouched = (share == 0).expand(-1, 3, -1, -1)
    assert torch.equal(found[untouched], clip[untouched]) and untouched.any()
    strong = (share > 0.6).expand(-1, 3, -1, -1)
    assert strong.any() and (found[strong] > clip[strong]).float().mean() > 0.9


def test_an_edit_of_everything_is_the_rendering():
    value, clip = atlas(), rand(N, 3, *SIZE, seed=9)
    for k in (0, 1):
        value = value.with_layer(k, value.layers[k].replaced(rand(3, 10, 20, seed=5 + k)))
    plain = replace(value, gains=None)
    assert torch.allclose(plain.over(clip, list(range(N))), drawn(plain), atol=1e-5)


def test_edits_add_up_and_sizes_may_differ():
    first, second = torch.zeros(10, 20), torch.zeros(20, 40)
    first[2, 3], second[10:12, 20:22] = 1, 1
    once = layer(0).replaced(torch.zeros(3, 10, 20), first)
    twice = once.replaced(torch.ones(3, 20, 40), second)
    assert twice.edited[2, 3] == 1 and twice.edited[5, 10] > 0.5 and twice.edited[9, 19] == 0
    assert torch.equal(twice.texture[:, 2, 3], torch.zeros(3)) and (twice.texture[:, 5, 10] > 0.5).all()


@pytest.mark.parametrize("value", [atlas(1, False), atlas(2), atlas(3)], ids=["one", "two", "three"])
def test_a_file_gives_back_the_same(tmp_path, value):
    value = value.with_layer(0, value.layers[0].replaced(torch.ones(3, 10, 20), rand(10, 20)))
    file.save(tmp_path / "a.safetensors", value)
    again = file.load(tmp_path / "a.safetensors")
    assert (again.size, again.clip) == (value.size, "abc")
    assert [one.box for one in again.layers] == [one.box for one in value.layers]
    assert all(torch.equal(a, b) for a, b in zip(parts(again), parts(value), strict=True))
    assert torch.equal(drawn(again), drawn(value))


def test_maps_are_kept_as_parameters(tmp_path):
    """A file does not grow with the size of the frames but for alpha."""
    value = atlas()
    file.save(tmp_path / "a.safetensors", value)
    floats = sum(part.numel() for part in parts(value) if part.is_floating_point())
    assert (tmp_path / "a.safetensors").stat().st_size < 4 * floats + 6000


def test_damaged_files_are_refused(tmp_path):
    path, random_ = tmp_path / "a.safetensors", random.Random(0)
    file.save(path, atlas())
    whole = path.read_bytes()
    for i in range(200):
        broken = bytearray(whole)
        if i % 4 == 0:
            broken = broken[: random_.randrange(len(whole))]
        else:
            broken[random_.randrange(len(whole))] ^= 1 << random_.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            file.load(path)


def changed(metadata=None, **tensors):
    """A file with other parts and a checksum that is right for them."""

    def write(path):
        file.save(path, atlas())
        found, words = file.safetensors_file.load(path)
        words.pop(file.safetensors_file.CHECKSUM)
        found = {k: v for k, v in (found | tensors).items() if v is not None}
        file.safetensors_file.save(path, found, words | (metadata or {}))

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: save_file({"x": torch.zeros(1)}, path), "holds no atlas"),
        (lambda path: path.write_bytes(b"nothing"), "not a readable safetensors file"),
        (changed({file.KEY: '{"format": 9}'}), "has format 9; this version reads 1"),
        (changed({file.KEY: "{"}), "no whole atlas"),
        (changed(**{"texture 0": torch.zeros(3, 4, 4)}), r"is \(3, 4, 4\) and not \(3, 10, 20\)"),
        (changed(**{"affine 1": torch.zeros(4, 2, 3)}), r"is \(4, 2, 3\) and not \(5, 2, 3\)"),
        (changed(**{"alpha 0": None}), "no whole atlas.*alpha 0"),
        (changed(gains=torch.full((N, 3, 4, 5), torch.nan)), "not finite"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, write, message):
    path = tmp_path / "a.safetensors"
    write(path)
    with pytest.raises(WeightsError, match=message):
        file.load(path)


def test_only_its_own_clip_is_taken():
    frames = rand(3, 3, 8, 12)
    own = fingerprint(frames)
    assert checked_clip(frames, (3, 8, 12), own) is frames
    assert checked_clip(frames, (3, 8, 12), "") is frames  # of an atlas that does not know its clip
    for other, message in ((frames[:2], "got 2 frames of 12x8"), (frames.flip(3), "differ from it in their pixels")):
        with pytest.raises(EI2Error, match=message):
            checked_clip(other, (3, 8, 12), own)
