"""The tuned-weight file: what goes in comes out, and nothing else is taken."""

import errno
import json
import re
from dataclasses import replace
from random import Random

import pytest
import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ei2_modules.config import InflateOptions
from ei2_modules.errors import EI2Error, WeightsError
from ei2_modules.files import safetensors_file
from ei2_modules.files.fingerprint import Fingerprint, distance, fingerprint
from ei2_modules.inflation import weights
from ei2_modules.inflation.fit import check_fits

from .toy import base, make, spec

OPTIONS = InflateOptions(stam_init="random")
PRINT = [1.0, -0.5, 0.25, 2.0, *fingerprint(list(base(spec()).values()))]  # of keys, and of queries


def tuned():
    return weights.EI2Weights(weights.make_header(spec(), OPTIONS, PRINT, {"steps": 3}), make(OPTIONS).export())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clip.safetensors"
    weights.save(path, tuned())
    return path


def test_round_trip(file):
    loaded = weights.load(file)
    assert loaded.header == tuned().header
    assert loaded.options() == OPTIONS
    for part in ("queries", "temporal"):
        expected = getattr(tuned().tensors, part)
        found = getattr(loaded.tensors, part)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_query_names_are_those_of_the_stock_lora_loader(file):
    names = set(load_file(file))
    assert "diffusion_model.blocks.0.attn1.to_q.diff" in names
    assert "ei2.temporal.blocks.1.to_out.bias" in names
    assert all(n.endswith(".diff") or n.startswith("ei2.temporal.") for n in names)


def rewrite(path, tensors=lambda t: t, metadata=lambda m: m):
    with safe_open(path, "pt") as f:
        old = dict(f.metadata())
    del old[safetensors_file.CHECKSUM]  # sealed anew: what is behind the seal must hold by itself
    safetensors_file.save(path, tensors(load_file(path)), metadata(dict(old)))


def edit_header(**changes):
    return lambda m: m | {"ei2": json.dumps(json.loads(m["ei2"]) | changes)}


def without(d, start):
    return {k: v for k, v in d.items() if not k.startswith(start)}


def poison(tensors):
    key = next(iter(tensors))
    return tensors | {key: torch.full_like(tensors[key], float("nan"))}


FIRST = "ei2.temporal.blocks.0.to_q.weight"
DAMAGE = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "not a readable"),
    "empty": (lambda p: p.write_bytes(b""), "not a readable"),
    "a text file": (lambda p: p.write_text("hello " * 100), "not a readable"),
    "huge header": (lambda p: p.write_bytes(b"\xff" * 7 + b"\x7f" + p.read_bytes()), "not a readable"),
    "missing": (lambda p: p.unlink(), "not a readable"),
    "a foreign safetensors file": (lambda p: save_file({"lora_up": torch.ones(2)}, p), "no EI² header"),
    "header is no JSON": (lambda p: rewrite(p, metadata=lambda m: m | {"ei2": "{"}), "damaged"),
    "header is no object": (lambda p: rewrite(p, metadata=lambda m: m | {"ei2": "[]"}), "damaged"),
    "header lacks entries": (lambda p: rewrite(p, metadata=lambda m: m | {"ei2": '{"format": 1}'}), "damaged"),
    "newer format": (lambda p: rewrite(p, metadata=edit_header(format=5)), "format 5"),
    "unknown option": (lambda p: rewrite(p, metadata=edit_header(options={"attention": "?"})), "damaged|must be"),
    "an option lacks": (lambda p: rewrite(p, metadata=edit_header(options={"seed": 1})), "damaged"),
    "no fingerprint": (lambda p: rewrite(p, metadata=edit_header(fingerprint=None)), "damaged|another kind|empty"),
    "an empty fingerprint": (lambda p: rewrite(p, metadata=edit_header(fingerprint=[])), "empty or not finite"),
    "a word for a fingerprint": (lambda p: rewrite(p, metadata=edit_header(fingerprint="abc")), "damaged"),
    "null in the fingerprint": (lambda p: rewrite(p, metadata=edit_header(fingerprint=[None])), "damaged"),
    "NaN in the fingerprint": (lambda p: rewrite(p, metadata=edit_header(fingerprint=[float("nan")])), "not finite"),
    "widths are nonsense": (lambda p: rewrite(p, metadata=edit_header(widths=[["a", 7, 2]])), "no UNet|complete"),
    "widths lie": (lambda p: rewrite(p, metadata=edit_header(widths=[["blocks.0", 16, 2]])), "not complete"),
    "a tensor lacks": (lambda p: rewrite(p, lambda t: without(t, FIRST)), "not complete"),
    "a tensor too many": (lambda p: rewrite(p, lambda t: t | {"x": torch.ones(1)}), "not complete"),
    "a wrong shape": (lambda p: rewrite(p, lambda t: t | {FIRST: torch.ones(8, 4)}), "not complete"),
    "a NaN": (lambda p: rewrite(p, poison), "not finite"),
    "integers": (lambda p: rewrite(p, lambda t: t | {FIRST: torch.ones(8, 8, dtype=torch.int32)}), "not finite"),
}


def flip(path, random):
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def cut(path, random):
    path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])


def grow(path, random):
    path.write_bytes(path.read_bytes() + random.randbytes(random.randrange(1, 100)))


def huge_header(path, random):
    path.write_bytes(random.randrange(2**20, 2**64).to_bytes(8, "little") + path.read_bytes()[8:])


def other_type(path, random):
    dtype = random.choice([torch.float16, torch.float64, torch.int8, torch.bool, torch.complex64])
    unseal(path, lambda t: t | {(name := random.choice(sorted(t))): t[name].to(dtype)})


def lacking(path, random):
    unseal(path, lambda t: without(t, random.choice(sorted(t))))


def renamed(path, random):
    unseal(path, lambda t: {k + "x" * (i == 0): v for i, (k, v) in enumerate(t.items())})


def unseal(path, change):
    """Changed by another program, which keeps the seal."""
    with safe_open(path, "pt") as f:
        metadata = f.metadata()
    save_file(change(load_file(path)), path, metadata)


MUTATIONS = [flip] * 10 + [cut] * 3 + [grow, huge_header, other_type, lacking, renamed]


@pytest.mark.parametrize("number", range(200))
def test_a_mutated_file_is_refused(file, number):
    random = Random(number)
    MUTATIONS[number % len(MUTATIONS)](file, random)
    with pytest.raises(WeightsError):
        weights.load(file)


def test_a_file_of_the_first_format_is_read(file):
    with safe_open(file, "pt") as f:
        header = json.loads(f.metadata()["ei2"]) | {"format": 1}
    save_file(load_file(file), file, {"ei2": json.dumps(header), "format": "pt"})
    assert weights.load(file).options() == OPTIONS
    save_file(load_file(file), file, {"ei2": json.dumps(header | {"format": 2})})
    with pytest.raises(WeightsError, match="no checksum"):
        weights.load(file)


@pytest.mark.parametrize(("written", "taken"), [(2, True), (3, True), (4, False)])
def test_files_of_before_the_group_norm_was_a_choice(file, written, taken):
    """Their norms saw one frame at a time; a file of today says so."""
    rewrite(file, metadata=edit_header(format=written, options=without(tuned().header.options, "group_norm")))
    if not taken:
        with pytest.raises(WeightsError, match="damaged"):
            weights.load(file)
        return
    old = weights.load(file)
    assert old.options() == OPTIONS and old.options().group_norm == "per frame"
    check_fits(old.header, spec(), OPTIONS, Fingerprint(PRINT))
    weights.save(file, old)
    assert weights.load(file).header == old.header


@pytest.mark.parametrize("case", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused(file, case):
    damage, message = case
    damage(file)
    with pytest.raises(EI2Error, match=message):
        weights.load(file)


OTHER_QUERIES = [*PRINT[:4], *(p + 0.5 for p in PRINT[4:])]
OTHERS = {
    "family": ({"spec": replace(spec(), family="SD20")}, "SD15.*SD20"),
    "prediction": ({"spec": replace(spec(), prediction="v")}, "eps-prediction.*v-prediction"),
    "widths": ({"spec": spec((8, 16))}, "2 blocks 8 wide.*2 blocks 8/16 wide"),
    "depth": ({"spec": spec((8,))}, "2 blocks 8 wide.*1 blocks 8 wide"),
    "checkpoint": ({"found": Fingerprint([p + 0.5 for p in PRINT])}, "another SD15 checkpoint.*allow_mismatch"),
    "a number of blocks": ({"found": Fingerprint(PRINT[:-1])}, "distance inf"),
    "not numbers": ({"found": Fingerprint([float("nan")] * 8)}, "distance nan"),
    "queries": ({"found": Fingerprint(OTHER_QUERIES)}, "on this SD15 checkpoint with other queries.*distance 0.500"),
    "these very queries, baked in": (
        {"found": Fingerprint(OTHER_QUERIES), "without_ours": lambda: [p + 0.001 for p in PRINT[4:]]},
        "queries of these very weights are in this checkpoint already",
    ),
    "these very queries, baked in and quantised": (
        {"found": Fingerprint(OTHER_QUERIES, 0.3, "Q3_K"), "without_ours": lambda: [p + 0.1 for p in PRINT[4:]]},
        "queries of these very weights are in this checkpoint already",
    ),
    "a quantised checkpoint": (
        {"found": Fingerprint([p + 0.5 for p in PRINT], 0.05, "Q5_0 (5.5 bits a number)")},
        "another SD15 checkpoint.*allowed 0.26 for a model stored as Q5_0",
    ),
    "temporal module": ({"options": replace(OPTIONS, temporal="layer norm")}, "'STAM'.*'layer norm'"),
    "attention": ({"options": replace(OPTIONS, attention="SCA")}, "'FFAM'.*'SCA'"),
    "group norm": ({"options": replace(OPTIONS, group_norm="pooled")}, "'per frame'.*'pooled'.*'per frame'"),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_weights_for_another_model_are_refused_naming_both(case):
    changes, message = case
    fits = {"spec": spec(), "options": OPTIONS, "found": Fingerprint(PRINT)} | changes
    with pytest.raises(WeightsError, match=message):
        check_fits(tuned().header, **fits)


@pytest.mark.parametrize(
    "name", ["checkpoint", "family", "prediction", "queries", "these very queries, baked in", "group norm"]
)
def test_with_allow_mismatch_another_checkpoint_is_only_warned_of(name):
    changes, message = OTHERS[name]
    fits = {"spec": spec(), "options": OPTIONS, "found": Fingerprint(PRINT)} | changes
    (note,) = check_fits(tuned().header, **fits, allow_mismatch=True)
    assert re.search(message.removesuffix(".*allow_mismatch"), note) and "allow_mismatch" not in note


@pytest.mark.parametrize("name", ["widths", "depth", "temporal module", "attention"])
def test_with_allow_mismatch_other_shapes_are_refused_all_the_same(name):
    changes, message = OTHERS[name]
    fits = {"spec": spec(), "options": OPTIONS, "found": Fingerprint(PRINT)} | changes
    with pytest.raises(WeightsError, match=message):
        check_fits(tuned().header, **fits, allow_mismatch=True)


def test_a_file_without_queries_in_its_fingerprint_is_compared_by_its_keys():
    """As formats 1 and 2 have it."""
    old = replace(tuned().header, fingerprint=PRINT[:4])
    check_fits(old, spec(), OPTIONS, Fingerprint(PRINT))
    check_fits(old, spec(), OPTIONS, Fingerprint(OTHER_QUERIES))
    with pytest.raises(WeightsError, match="another SD15 checkpoint"):
        check_fits(old, spec(), OPTIONS, Fingerprint([PRINT[0] + 0.5, *PRINT[1:]]))


def test_queries_that_are_nearer_with_ours_are_not_said_to_hold_them():
    """The checkpoint itself, rounded: without what was learnt it is further away."""
    near = Fingerprint([p + 0.004 for p in PRINT])
    assert check_fits(tuned().header, spec(), OPTIONS, near, without_ours=lambda: [p + 0.05 for p in PRINT[4:]]) == []
    assert check_fits(tuned().header, spec(), OPTIONS, near, without_ours=lambda: [p - 0.003 for p in PRINT[4:]]) == []


def test_a_quantised_checkpoint_that_fits_is_said():
    rounded = Fingerprint([p + 0.2 for p in PRINT], 0.05, "Q5_0 (5.5 bits a number)")
    (note,) = check_fits(tuned().header, spec(), OPTIONS, rounded)
    assert re.search(r"stored as Q5_0 .*distance 0.200, allowed 0.260", note)


@pytest.mark.parametrize("options", [OPTIONS, None, replace(OPTIONS, coarse_ratio=4), replace(OPTIONS, seed=1)])
def test_weights_that_fit_are_taken(options):
    assert check_fits(tuned().header, spec(), options, Fingerprint(PRINT)) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fingerprint_survives_rounding(dtype):
    big = [torch.randn(64, 64, generator=torch.Generator().manual_seed(s)) for s in range(8)]
    rounded = fingerprint([w.to(dtype) for w in big])
    assert distance(fingerprint(big), rounded) < 0.01
    other = [w + 0.05 * torch.randn_like(w) for w in big]
    assert distance(fingerprint(big), fingerprint(other)) > 0.01
    assert distance([1.0], [1.0, 2.0, 3.0]) == float("inf")


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()
    monkeypatch.setattr(
        safetensors_file, "save_file", lambda *a: (_ for _ in ()).throw(OSError("No space left on device"))
    )
    with pytest.raises(EI2Error, match="No space left"):
        weights.save(file, tuned())
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (safetensors.SafetensorError("IoError(Os { code: 28, kind: StorageFull })"), "Free some space"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "Choose a shorter name"),
        (PermissionError(errno.EACCES, "Permission denied"), "may write to"),
        (OSError("something else"), "Choose another folder"),
    ],
)
def test_the_advice_fits_the_fault(file, monkeypatch, error, advice):
    monkeypatch.setattr(safetensors_file, "save_file", lambda *a: (_ for _ in ()).throw(error))
    with pytest.raises(EI2Error, match=advice):
        weights.save(file, tuned())


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(EI2Error, match="could not be written"):
        weights.save(tmp_path / "no" / "clip.safetensors", tuned())
