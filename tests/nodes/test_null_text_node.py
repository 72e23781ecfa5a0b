"""Null-Text Inversion on the real host: the clip comes back under guidance, and nothing else changes."""

from itertools import pairwise

import comfy.model_management as mm
import comfy.samplers
import pytest
import torch
from comfy.conds import CONDCrossAttn, CONDRegular
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

from .mini import caption, clip, controlled, controlnet, hints, inflate, invert, model, pack, plain_sample, run, sample

EI2Error = pack("ei2_modules.errors").EI2Error
FRAMES, STEPS, INNER, CFG = 2, 4, 2, 7.5
SMALL = {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}
EMPTY = 3  # seed of the empty text


def null_text(m, latent, **options):
    defaults = {
        "positive": caption(), "negative": caption(EMPTY), "cfg": CFG, "inner_steps": INNER, "learning_rate": 0.1,
        "early_stop": 1e-5, "frames": "shared", "branch": "source only", "steps": "all",
    }  # fmt: skip
    return run("null_text.NullTextInversion", model=m, latent=latent, **(defaults | options))


@pytest.fixture(scope="module")
def ready():
    """(inflated model, inverted latent of a clip of two frames)."""
    with torch.inference_mode():
        m = inflate(model(**SMALL))
        return m, invert(m, clip(FRAMES), steps=STEPS, iterations=3)[0]


@pytest.fixture(scope="module")
def shared(ready):
    """(null text, report) with one text for all frames."""
    with torch.inference_mode():
        return null_text(*ready)


class Guided(comfy.samplers.CFGGuider):
    """The host's own guidance, with the negative of each step from a null text."""

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        plain, fitted = self.conds["negative"], self.fitted.conds_at(self.conds["negative"], timestep[0])
        self.conds["negative"] = fitted
        try:
            return super().predict_noise(x, timestep, model_options, seed)
        finally:
            self.conds["negative"] = plain


def sampled(m, latent, fitted):
    """The clip that comes back, by the host's own sampling."""
    guider = Guided(m)
    guider.fitted = fitted
    guider.set_conds(caption(), caption(EMPTY))
    guider.set_cfg(fitted.cfg)
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
    noise = latent["samples"]
    return guider.sample(torch.zeros_like(noise), noise, sampler, sigmas, disable_pbar=True)


def error(found):
    return float((found - clip(FRAMES)["samples"]).square().mean())


def told(report):
    """dB before and with the null text."""
    return [float(line.split(" dB")[0].split()[-1]) for line in report.splitlines() if "dB PSNR" in line]


ROWS = {"shared": ({}, 4.0), "one each": ({"frames": "one each"}, 8.0), "last half": ({"steps": "last half"}, 1.02)}


@pytest.mark.parametrize("options, factor", ROWS.values(), ids=ROWS)
def test_the_clip_comes_back_nearer_by_a_factor(ready, options, factor):
    """Under the host's own guidance, where plain sampling with the same cfg strays; and as the report says."""
    fitted, report = null_text(*ready, **options)
    before, after = error(sample(*ready, cfg=CFG)), error(sampled(*ready, fitted))
    assert before > factor * after
    rows = FRAMES if "frames" in options else 1
    assert fitted.text.embeddings.shape == (STEPS, rows, 77, 64)
    ten = torch.tensor([before, after]).log10() * 10
    first, second = told(report)
    assert second - first == pytest.approx(float(ten[0] - ten[1]), abs=0.3)


def test_the_last_half_alone_is_used(shared, ready):
    fitted = null_text(*ready, steps="last half")[0].text.embeddings
    assert torch.equal(fitted[:2], caption(EMPTY)[0][0].expand(2, 1, -1, -1)), "the first two are plain"
    assert torch.equal(fitted[2:], shared[0].text.embeddings[2:])


@pytest.mark.parametrize("branch, decoupled", [("source only", True), ("source and edit", False)])
def test_what_the_value_carries(ready, branch, decoupled):
    fitted = null_text(*ready, branch=branch, inner_steps=1)[0]
    assert (fitted.decoupled, fitted.cfg, fitted.steps) == (decoupled, CFG, STEPS)
    record = ready[1]["ei2_inversion"]
    assert fitted.checksums == tuple(record.checksums) and fitted.fingerprint == record.fingerprint
    with pytest.raises(AttributeError):
        fitted.decoupled = not decoupled


def first_step_by_hand(m, latent, inner, rate):
    """The published loop for the first step, by the UNet itself: Adam written out, VP latents, two calls an update."""
    x, goal = (latent["ei2_inversion"].trajectory[i] for i in (-1, -2))
    table = m.get_model_object("model_sampling").sigmas
    high, low = (float(table[t]) for t in (1 + 3 * (1000 // STEPS), 1 + 2 * (1000 // STEPS)))
    options = m.model_options["transformer_options"] | {"cond_or_uncond": [0], "uuids": [0]}
    mm.load_models_gpu([m, *m.get_nested_additional_models()])
    with torch.inference_mode(False), torch.enable_grad():
        for module in (m.model, *(a.model for a in m.get_nested_additional_models())):
            pack("nodes.host.tuning.model")._leave_inference_mode(module)
        x, goal, text = (torch.empty_like(t).copy_(t) for t in (x, goal, caption()[0][0]))
        empty = caption(EMPTY)[0][0]
        embedding, first, second = torch.empty_like(empty).copy_(empty), 0.0, 0.0

        def noise(e):
            found = m.model.apply_model(
                x, torch.full([FRAMES], high), c_crossattn=e.expand(FRAMES, -1, -1), transformer_options=dict(options)
            )
            return (x - found) / high

        caption_noise = noise(text).detach()
        for j in range(1, inner + 1):
            embedding = embedding.detach().requires_grad_()
            guess = noise(embedding)
            z = (x + (low - high) * (guess + CFG * (caption_noise - guess))) / (1 + low**2) ** 0.5
            (g,) = torch.autograd.grad((z - goal / (1 + low**2) ** 0.5).square().mean(), embedding)
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
            embedding = embedding - rate * (first / (1 - 0.9**j)) / ((second / (1 - 0.999**j)).sqrt() + 1e-8)
        return embedding.detach()


@pytest.mark.parametrize("mode", ["EI²", "Tune-A-Video"])
def test_the_first_step_is_the_published_loop_by_hand(mode):
    """Through frame attention and temporal modules, at the published rate. Where a gradient is nearly 0, Adam's step
    hangs on the last digits of it."""
    m = inflate(model(**SMALL), mode)
    noise, _ = invert(m, clip(FRAMES), steps=STEPS)
    fitted = null_text(m, noise, inner_steps=2, learning_rate=1e-2)[0].text.embeddings[0]
    expected = first_step_by_hand(m, noise, 2, 1e-2)
    assert (expected - caption(EMPTY)[0][0]).abs().mean() > 5e-3, "it has moved"
    assert (fitted - expected).abs().mean() < 1e-5


@pytest.fixture
def passes(monkeypatch):
    """A list that grows by one with every pass under an embedding."""
    guider, found = pack("nodes.host.null_text.guider").NullTextGuider, []
    original = guider.under
    monkeypatch.setattr(guider, "under", lambda self, *args: found.append(1) or original(self, *args))
    return found


def cancel(monkeypatch, after):
    """The user presses cancel after so many passes under an embedding."""
    guider, count = pack("nodes.host.null_text.guider").NullTextGuider, []
    original = guider.under

    def under(self, *args):
        if len(count) == after:
            raise mm.InterruptProcessingException
        count.append(1)
        return original(self, *args)

    monkeypatch.setattr(guider, "under", under)


A_STEP = INNER + 1  # passes under an embedding
STOPS = {"after the first step": (STEPS + A_STEP, 1), "within the second": (STEPS + A_STEP + 2, 1),
         "in the last look at the clip": (STEPS + STEPS * A_STEP + 1, STEPS)}  # fmt: skip


@pytest.mark.parametrize("after, kept", STOPS.values(), ids=STOPS)
def test_cancelled_and_gone_on_with_it_is_the_undisturbed_one(ready, shared, passes, monkeypatch, caplog, after, kept):
    with monkeypatch.context() as patched, pytest.raises(mm.InterruptProcessingException):
        cancel(patched, after)
        null_text(*ready)
    passes.clear()
    with caplog.at_level("INFO"):
        fitted, _ = null_text(*ready)
    assert f"Going on at step {kept}" in caplog.text
    assert len(passes) == 2 * STEPS + kept + (STEPS - kept) * A_STEP, "what was done is only sampled again"
    assert torch.equal(fitted.text.embeddings, shared[0].text.embeddings)
    assert (fitted.text.losses, fitted.text.updates) == (shared[0].text.losses, shared[0].text.updates)


OTHERS = {
    "cfg": {"cfg": 3.0},
    "caption": {"positive": caption(9)},
    "updates": {"inner_steps": INNER + 1},
    "frames": {"frames": "one each"},
}


def test_what_was_kept_is_for_the_same_work_only(ready):
    job, unfinished = pack("nodes.host.null_text.job"), pack("nodes.host.null_text.unfinished")
    options = pack("ei2_modules.diffusion.null_text").NullTextOptions

    def key(positive=None, cfg=CFG, inner_steps=INNER, frames="shared", **choices):
        texts = positive or caption(), caption(EMPTY)
        made = options(inner_steps, per_frame=frames == "one each")
        return unfinished.key_of(job.make_job(*ready, *texts, cfg, made, **choices))

    assert key() == key() == key(decoupled=False, last_half=True) is not None
    assert len({key(), *(key(**other) for other in OTHERS.values())}) == 1 + len(OTHERS)


def test_models_and_inputs_are_untouched(ready):
    m = model(**SMALL)
    inflated = inflate(m)
    latent, _ = invert(inflated, clip(FRAMES), steps=STEPS)
    before = [plain_sample(m), plain_sample(inflated), latent["samples"].clone()]
    texts = {"positive": caption(), "negative": caption(EMPTY)}
    null_text(inflated, latent, inner_steps=1, **texts)
    after = [plain_sample(m), plain_sample(inflated), latent["samples"]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(texts["negative"][0][0], caption(EMPTY)[0][0])
    assert [n for n, x in m.model.named_modules() if "forward" in vars(x)] == []


def test_checkpointing_changes_nothing(ready, shared, monkeypatch):
    """It is chosen where the memory would not suffice."""
    monkeypatch.setattr(pack("nodes.host.tuning.preflight").mm, "get_free_memory", lambda device: 2**21)
    monkeypatch.setattr(mm, "get_free_memory", lambda *a, **k: 2**21)
    fitted, report = null_text(*ready)
    assert "gradient checkpointing on" in report
    torch.testing.assert_close(fitted.text.embeddings, shared[0].text.embeddings, rtol=0, atol=1e-3)


def in_windows(m):
    return ContextWindowsManualNode.execute(m, 2, 1, "standard_static", 1, False, "pyramid", 0).args[0]


def under_control():
    texts = controlled((controlnet(), hints(range(FRAMES))), negative=caption(EMPTY))
    return dict(zip(("positive", "negative"), texts, strict=True))


def long_text():
    return {"negative": [[torch.cat([caption(i)[0][0] for i in (EMPTY, 4)], 1), {}]]}


GOES_WITH = {
    "a negative of two times 77 tokens": lambda: (inflate(model(**SMALL)), FRAMES, long_text()),
    "one text each, in windows": lambda: (in_windows(inflate(model(**SMALL))), 3, {"frames": "one each"}),
    "ControlNets": lambda: (inflate(model()), FRAMES, under_control()),
}


@pytest.mark.parametrize("made", GOES_WITH.values(), ids=GOES_WITH)
def test_what_goes_with_it(made):
    m, frames, options = made()
    noise, _ = invert(m, clip(frames), options.get("positive"), steps=2)
    before, after = told(null_text(m, noise, **options)[1])
    assert after > before + 0.3


def test_the_time_is_told_and_the_bar_comes_to_its_end(ready, monkeypatch):
    seen, said = [], []
    monkeypatch.setattr("comfy.utils.ProgressBar.update_absolute", lambda self, v, t, p=None: seen.append((v, t)))
    monkeypatch.setattr(pack("nodes.host.null_text.run"), "say", said.append)
    null_text(*ready, inner_steps=1)
    assert seen[-1][0] == seen[-1][1] == STEPS * (2 + 5 + 2) and [v for v, _ in seen] == sorted(v for v, _ in seen)
    assert "Null text: 2 frames of 64x64, float32, gradient checkpointing off, need about 0.0 of" in said[0]
    assert "for 4 steps of up to 1 updates" in said[0]


def test_the_report(shared):
    report = shared[1].splitlines()
    assert report[0] == (
        "Null-text inversion: 2 frames, 4 steps, used in all of them, cfg 7.5, one text for all frames, for source only"
    )
    assert report[3].startswith("updates: 8 of at most 8, fitted in ")
    rows = zip(report[5:], shared[0].text.losses, strict=True)
    assert all(line.endswith(f"2 updates, loss {loss:.2e}") for line, loss in rows)


def test_a_null_text_that_does_not_help_is_said(ready, caplog):
    report = null_text(*ready, learning_rate=1.0, inner_steps=1)[1]
    assert "WARNING: the null text does not bring the clip nearer" in report and "does not bring" in caplog.text


@pytest.mark.parametrize("call, where", [(1, "step 1 of 4"), (10, "step 1 of 4"), (22, "step 4 of 4")])
def test_values_that_are_not_finite_are_said_by_sigma(ready, monkeypatch, call, where):
    """In the first look at the clip, in an update, and in a later step: what is done is kept."""
    m, calls = ready[0], []
    original = m.model.apply_model

    def spoiled(x, t, **kwargs):
        calls.append(t)
        return original(x, t, **kwargs) * (float("nan") if len(calls) >= call else 1)

    monkeypatch.setattr(m.model, "apply_model", spoiled)
    with pytest.raises(EI2Error, match=rf"not finite at {where} \(sigma .*It computes in float32"):
        null_text(*ready)
    pack("nodes.host.null_text.unfinished")._kept.clear()


def changed(latent):
    return latent | {"samples": latent["samples"] * 1.1}


def cut(latent):
    return latent | {"samples": latent["samples"][:1]}


def limited(**options):
    return [[caption()[0][0], options]]


REFUSED = {
    "a plain model": (lambda m, n: null_text(model(**SMALL), n), "Null-Text Inversion needs an inflated model"),
    "another model": (lambda m, n: null_text(inflate(model(seed=9, **SMALL)), n), "inverted with another checkpoint"),
    "a clip": (lambda m, n: null_text(m, clip(FRAMES)), "never inverted, or lost its record"),
    "a latent without its record": (
        lambda m, n: null_text(m, {"samples": n["samples"]}), r"lost its record on the way \(Save Latent"
    ),
    "a finished clip": (lambda m, n: null_text(m, n | clip(FRAMES)), "no inverted noise|Only 0 of the 2 frames"),
    "changed noise": (lambda m, n: null_text(m, changed(n)), "Only 0 of the 2 frames.*of 2 in all"),
    "frames cut away": (lambda m, n: null_text(m, cut(n)), "Only 1 of the 1 frames.*of 2 in all"),
    "cfg 1": (lambda m, n: null_text(m, n, cfg=1.0), "cfg is 1:.*7.5 say"),
    "cfg 0": (lambda m, n: null_text(m, n, cfg=0.0), "cfg is 0:"),
    "no updates": (lambda m, n: null_text(m, n, inner_steps=0), "inner steps is 0"),
    "no rate": (lambda m, n: null_text(m, n, learning_rate=0.0), "learning rate is 0"),
    "no text": (lambda m, n: null_text(m, n, negative=[]), "negative conditioning is empty"),
    "a text of another model": (lambda m, n: null_text(m, n, positive=caption(width=96)), "96 wide.*takes 64"),
    "two negatives": (lambda m, n: null_text(m, n, negative=caption() * 2), "2 entries and 1 embeddings"),
    "a negative for each frame": (
        lambda m, n: null_text(m, n, negative=[[torch.zeros(FRAMES, 77, 64), {}]]), "1 entries and 2 embeddings"
    ),
    "a mask on a text": (lambda m, n: null_text(m, n, positive=limited(mask=torch.ones(1, 8, 8))), "carries a mask"),
    "a range of steps": (lambda m, n: null_text(m, n, negative=limited(start_percent=0.5)), "a timestep range"),
}  # fmt: skip


@pytest.mark.parametrize("attempt, words", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_before_any_pass(ready, passes, attempt, words):
    with pytest.raises(EI2Error, match=words):
        attempt(*ready)
    assert passes == []


@pytest.mark.parametrize("cfg, words", [(1.0, "cfg is 1"), (7.5, None), (None, None)])
def test_the_editor_says_it_before_running(cfg, words):
    found = pack("nodes.null_text").NullTextInversion.validate_inputs(cfg=cfg, frames="shared")
    assert words in found if words else found is True


def test_too_little_memory_is_refused_with_what_fits(ready, passes, monkeypatch):
    monkeypatch.setattr(pack("nodes.host.tuning.preflight").mm, "get_free_memory", lambda device: 2**17)
    with pytest.raises(EI2Error, match=r"2 frames of 64x64.*0.0 GiB are free.*--bf16-unet"):
        null_text(*ready)
    assert passes == []


@pytest.mark.parametrize(
    "side, lean, least, most", [(16, False, 0.94, 1.0), (16, True, 0.24, 0.26), (8, True, 0.06, 0.066)]
)
def test_the_estimate_of_sd15(side, lean, least, most):
    """Measured in fp32 with 8 frames: 0.946, and with checkpointing 0.245 and 0.064 GiB."""
    demand = pack("nodes.host.null_text.preflight").NullTextDemand
    assert least < demand(8, side, side, torch.float32, lean, 320, 2820, 0, 12 * 77 * 768).bytes / 2**30 < most


def test_out_of_memory_says_what_to_change(ready, monkeypatch):
    def full(*args):
        raise mm.OOM_EXCEPTION("CUDA out of memory")

    monkeypatch.setattr(pack("nodes.host.null_text.guider").NullTextGuider, "under", full)
    with pytest.raises(EI2Error, match=r"Out of memory while fitting the null text of 2 frames of 64x64.*To fit: "):
        null_text(*ready)


def other(numbers):
    return pack("ei2_modules.files.fingerprint").Fingerprint(numbers)


MISFITS = {
    "another checkpoint": (lambda f: {"fingerprint": other([n + 1 for n in f.fingerprint.numbers])}, "another ch"),
    "another number of steps": (lambda f: {"steps": 5}, "2 frames in 4 steps.*2 frames in 5"),
    "another clip": (lambda f: {"checksums": (b"", b"")}, "another inversion"),
    "fewer frames": (lambda f: {"checksums": f.checksums[:1]}, "holds 1 frames in 4"),
    "another caption": (lambda f: {"caption": b""}, "another text than Prompt Edit's caption"),
    "another cfg": (lambda f: {"cfg": 3.0}, "for cfg 7.5, and cfg is 3 here"),
}


@pytest.mark.parametrize("wrong, words", MISFITS.values(), ids=MISFITS)
def test_a_sampling_that_it_was_not_fitted_for_is_refused(shared, wrong, words):
    fitted = shared[0]
    fits = {"fingerprint": fitted.fingerprint, "steps": STEPS, "checksums": list(fitted.checksums), "cfg": CFG}
    fits["caption"] = pack("nodes.host.conditioning").checksum(caption())
    fitted.check(**fits)
    fitted.check(**fits | {"cfg": CFG + 1e-7})  # as a wired sum may have it
    with pytest.raises(EI2Error, match=words):
        fitted.check(**fits | wrong(fitted))


def test_only_the_embedding_is_replaced(shared):
    """What SDXL pools of a text stays, and so does the conditioning that came in."""
    pooled, text = CONDRegular(torch.ones(1, 8)), CONDCrossAttn(caption(EMPTY)[0][0])
    conds = [{"uuid": 1, "control": "net", "model_conds": {"y": pooled, "c_crossattn": text}}]
    sigmas = shared[0].text.sigmas
    for i, sigma in enumerate(sigmas):
        (found,) = shared[0].conds_at(conds, sigma)
        assert torch.equal(found["model_conds"]["c_crossattn"].cond, shared[0].text.embeddings[i])
        assert found["model_conds"]["y"] is pooled and (found["uuid"], found["control"]) == (1, "net")
    assert conds[0]["model_conds"]["c_crossattn"] is text
    assert all(a > b for a, b in pairwise(sigmas.tolist()))
