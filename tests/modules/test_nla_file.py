"""What the published code of Layered Neural Atlases leaves: read whole, or refused with what is wrong."""

import json
import zipfile

import pytest
import torch

from ei2_modules.atlas.nla import Network
from ei2_modules.atlas.nla_file import load
from ei2_modules.errors import WeightsError

from .. import nla_checkpoint
from ..nla_checkpoint import KEYS, config_of, random_state, random_states


@pytest.fixture
def folder(tmp_path):
    nla_checkpoint.save(tmp_path, random_states(), config_of((40, 64)))
    return tmp_path


def test_all_is_read(folder):
    found = load(folder)
    assert (found.size, found.most) == ((40, 64), 70)
    for name, state in random_states().items():
        network = getattr(found.networks, name)
        for k, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            assert torch.equal(weight, state[f"hidden.{k}.weight"]) and torch.equal(bias, state[f"hidden.{k}.bias"])
        assert network.frequencies == {"alpha": 5, "atlas": 4}.get(name, 0)


def test_encoded_mappings_are_read(folder):
    """Switched on in the config."""
    states = random_states() | {"foreground": random_state(3, 2, 4, layers=6)}
    config = config_of((40, 64), use_positional_encoding_mapping1=True)
    nla_checkpoint.save(folder, states, config)
    assert load(folder).networks.foreground.frequencies == 4
    nla_checkpoint.save(folder, states, config | {"number_of_positional_encoding_mapping1": 5})
    with pytest.raises(WeightsError, match="says 5 for number_of_positional_encoding_mapping1 and checkpoint holds 4"):
        load(folder)


def test_a_config_may_say_less(folder):
    configure_all = {"resx": 64, "resy": 40, "maximum_number_of_frames": 3}
    (folder / "config.json").write_text(json.dumps(configure_all))
    assert load(folder).most == 3


def rewrite(change):
    """Change what the checkpoint holds, in place."""

    def changed(folder):
        saved = torch.load(folder / "checkpoint", weights_only=True)
        change(saved)
        torch.save(saved, folder / "checkpoint")

    return changed


def configure(**changes):
    def changed(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return changed


def overwrite(content, name="checkpoint"):
    return lambda folder: (folder / name).write_bytes(content)


def in_the_way(folder):
    """Something of that name that is no file."""
    (folder / "checkpoint").unlink()
    (folder / "checkpoint").mkdir()


def cut(folder):
    path = folder / "checkpoint"
    path.write_bytes(path.read_bytes()[:-200])


def flip(folder):
    """One bit of a weight."""
    path = folder / "checkpoint"
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 400] ^= 1
    path.write_bytes(content)


def old_format(folder):
    """What PyTorch before 1.6 wrote."""
    torch.save({"F_atlas_state_dict": {}}, folder / "checkpoint", _use_new_zipfile_serialization=False)


class Code:
    ran = False

    def __reduce__(self):
        return setattr, (Code, "ran", True)


def with_code(folder):
    torch.save({"F_atlas_state_dict": Code()}, folder / "checkpoint")


def script(folder):
    """What tells PyTorch's reader of a TorchScript program."""
    with zipfile.ZipFile(folder / "checkpoint", "w") as archive:
        archive.writestr("checkpoint/constants.pkl", b"")


def weight(name, key, value):
    return rewrite(lambda saved: saved[KEYS[name]][key].fill_(value))


BAD = [
    (in_the_way, "checkpoint cannot be read"),
    (lambda folder: (folder / "checkpoint").unlink(), "checkpoint cannot be read"),
    (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    (overwrite(b""), "checkpoint is no file of PyTorch 1.6 or newer"),
    (overwrite(b"version https://git-lfs"), "checkpoint is no file of PyTorch 1.6 or newer"),
    (old_format, "checkpoint is no file of PyTorch 1.6 or newer"),
    (overwrite(b"PK\x03\x04 and nothing"), "checkpoint is damaged or half copied"),
    (cut, "checkpoint is damaged or half copied"),
    (flip, "checkpoint is damaged or half copied: .* has changed"),
    (with_code, "holds more than weights, so it was not read"),
    (script, "is a program .TorchScript. and no weights"),
    (lambda folder: torch.save([1, 2], folder / "checkpoint"),
     "lacks model_F_mapping1_state_dict, .*F_atlas_state_dict: it is no checkpoint of"),
    *((rewrite(lambda saved, key=key: saved.pop(key)), f"checkpoint lacks {key}:")
      for key in KEYS.values()),
    (rewrite(lambda saved: saved.update(F_atlas_state_dict=3)), "checkpoint lacks F_atlas_state_dict:"),
    (rewrite(lambda saved: saved["F_atlas_state_dict"].pop("hidden.3.bias")),
     "F_atlas_state_dict is another kind of network: .*Copy it again"),
    (rewrite(lambda saved: saved.update(model_F_alpha_state_dict=saved["F_atlas_state_dict"])),
     "model_F_alpha_state_dict does not fit together|model_F_alpha_state_dict takes"),
    (weight("alpha", "hidden.2.weight", float("nan")), "model_F_alpha_state_dict holds values that are not finite"),
    (weight("foreground", "hidden.0.bias", float("inf")), "mapping1_state_dict holds values that are not finite"),
    (overwrite(b"{", "config.json"), "config.json is no JSON"),
    (overwrite(b"\xff\xfe{", "config.json"), "config.json is no JSON"),
    (overwrite(b"[]", "config.json"), "config.json has None for resx"),
    (configure(resx="64"), "config.json has '64' for resx: a whole number is needed"),
    (configure(resy=0), "config.json has 0 for resy"),
    (configure(resy=True), "config.json has True for resy"),
    (configure(maximum_number_of_frames=None), "config.json has None for maximum_number_of_frames"),
    (configure(number_of_layers_atlas=7), "config.json says 7 for number_of_layers_atlas and checkpoint holds 8"),
    (configure(number_of_channels_alpha=256), "says 256 for number_of_channels_alpha and checkpoint holds 16"),
    (configure(number_of_layers_mapping1=4), "says 4 for number_of_layers_mapping1 and checkpoint holds 6"),
    (configure(number_of_layers_mapping2=6), "says 6 for number_of_layers_mapping2 and checkpoint holds 4"),
    (configure(positional_encoding_num_alpha=4), "says 4 for positional_encoding_num_alpha and checkpoint holds 5"),
    (configure(use_positional_encoding_mapping1=True), "says True for use_positional_encoding_mapping1"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), BAD)
def test_bad_files_are_refused(folder, spoil, said):
    spoil(folder)
    with pytest.raises(WeightsError, match=said) as caught:
        load(folder)
    assert not Code.ran and str(caught.value).endswith(".")


def without(name):
    return lambda s: s.pop(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("hidden.1.weight"), "another kind of network: hidden.1.weight|another kind of network: hidden"),
        (lambda s: s.update({"norm.weight": torch.ones(2)}), "another kind of network: .*norm.weight"),
        (lambda s: s.update({"hidden.0.bias": 3}), "another kind of network"),
        (lambda s: s.clear(), "has no layers"),
        (
            lambda s: s.update({"hidden.1.weight": torch.ones(16, 15)}),
            "layer 1 is .16, 15. and .16,. behind 16 numbers",
        ),
        (lambda s: s.update({"hidden.1.bias": torch.ones(15)}), "layer 1 is .16, 16. and .15,."),
        (lambda s: s.update({"hidden.0.weight": torch.ones(16, 7)}), "takes 7 numbers and gives 2: .*multiple of 6"),
        (lambda s: s["hidden.2.weight"].fill_(torch.nan), "not finite in layer 2"),
        (lambda s: s["hidden.2.bias"].fill_(torch.inf), "not finite in layer 2"),
        (lambda s: s.update({"hidden.3.weight": torch.ones(3, 16), "hidden.3.bias": torch.ones(3)}), "gives 3"),
    ],
)
def test_what_is_no_such_network_is_refused(change, said):
    state = random_state(3, 2)
    change(state)
    with pytest.raises(WeightsError, match=said):
        Network.of(state, 3, 2)
