"""The tuning loop on a toy UNet: loss, trainable count, stopping, repeatability."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.parametrize import ParametrizationList

from ei2_modules.config import InflateOptions, TuningOptions
from ei2_modules.diffusion.objective import add_noise, diffusion_loss
from ei2_modules.errors import DivergedError, EI2Error, UnmovedError
from ei2_modules.inflation.temporal_bank import TemporalBank, fresh_bank
from ei2_modules.tuning.loop import Tuning, draw

from .sd_schedule import sd_sigmas
from .toy import SIGMAS, clip, denoiser, make, spec


def run(trainables, steps=4, denoise=None, **options):
    options = TuningOptions(steps=steps, learning_rate=1e-2, **options)
    return list(Tuning(trainables, options).steps(denoise or denoiser(trainables), clip(), SIGMAS, "eps"))


SD15_DIMS = [320] * 5 + [640] * 5 + [1280] * 6


@pytest.mark.parametrize(
    ("temporal", "count"),
    [("STAM", 74_354_880), ("layer norm without scale", 74_354_880), ("IC without SN", 74_354_880),
     ("layer norm", 74_354_880 + 2 * 12_480), ("none", 24_780_800)],
)  # fmt: skip
def test_trainable_count_of_sd15(temporal, count):
    sd15 = spec(SD15_DIMS, heads=8)
    dims = {b.path: b.dim for b in sd15.blocks}
    queries = sum(dims[p[:-11]] ** 2 for p in sd15.query_paths())
    with torch.device("meta"):
        bank = TemporalBank(sd15, temporal)
    assert queries + sum(p.numel() for p in bank.parameters()) == count


def test_everything_listed_is_trained():
    trainables = make()
    before = {n: p.detach().clone() for n, p in trainables.named_parameters()}
    run(trainables)
    assert trainables.count() == sum(p.numel() for p in before.values())
    still = [n for n, p in trainables.named_parameters() if torch.equal(p, before[n])]
    assert not still


def shared(trainables):
    """The base lies in the memory that is trained, as with a class of tensors that clones itself into itself."""
    trainables.base = {path: w.data for path, w in trainables.queries().items()}


def detached(*kinds):
    def change(trainables):
        for parts in kinds:
            for p in parts(trainables):
                p.requires_grad_(False)

    return change


STILL = {
    "queries that share the memory of the base": (shared, "not one of the 4 query projections has moved"),
    "queries without gradients": (detached(lambda t: t.query_weights), "not one of the 4 query projections has moved"),
    "temporal modules without gradients": (detached(lambda t: t.bank.parameters()), "tensors of the temporal modules"),
}


@pytest.mark.parametrize("case", STILL.values(), ids=STILL)
@pytest.mark.parametrize("started", [False, True])
def test_a_tuning_that_moves_nothing_stops_after_its_first_step(case, started):
    change, message = case
    trainables = make()
    if started:
        run(trainables)
        trainables = make(start=trainables.export())
    change(trainables)
    tuning = Tuning(trainables, TuningOptions(steps=4))
    with pytest.raises(UnmovedError, match=message):
        list(tuning.steps(denoiser(trainables), clip(), SIGMAS, "eps"))
    assert tuning.done == 0, "and there is nothing to keep"


def test_some_queries_without_gradients_are_named():
    trainables = make()
    trainables.query_weights[2].requires_grad_(False)
    first, *others = run(trainables)
    assert first.unmoved == ("blocks.1.attn1.to_q",) and not any(step.unmoved for step in others)


def amplified(trainables, gain):
    """The toy, more wrong or less, so that its gradients need clipping or not."""
    return lambda x, sigma, frames=None: x - gain * (x - denoiser(trainables)(x, sigma))


def slow_tune(trainables, gain, steps, lr, seed):
    """One-shot tuning of section 5 and Tune-A-Video, with nothing but autograd: [(loss, norm)] and changed weights."""
    generator, log = torch.Generator().manual_seed(seed), []
    weights = list(trainables.parameters())
    m, v = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for t in range(1, steps + 1):
        noise = torch.randn(3, 4, 2, 4, generator=generator)
        sigma = SIGMAS[torch.randint(1000, (), generator=generator)]
        x = clip() + sigma * noise
        eps = (x - amplified(trainables, gain)(x, sigma.expand(3))) / sigma
        loss = (eps - noise).square().mean()
        grads = torch.autograd.grad(loss, weights)
        norm = sum(g.square().sum() for g in grads).sqrt()
        log.append((loss.item(), norm.item()))
        for i, g in enumerate(grads):
            g = g / norm if norm > 1 else g
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            step = (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.999**t)).sqrt() + 1e-8)
            weights[i].data = weights[i].data - lr * 0.01 * weights[i].data - lr * step
        for normed in (n for n in trainables.modules() if isinstance(n, ParametrizationList)):
            w, sn = normed.original.data, normed[0]
            sn.v = w.T @ sn.u / (w.T @ sn.u).norm()
            sn.u = w @ sn.v / (w @ sn.v).norm()
    return log


@pytest.mark.parametrize(("gain", "clipped"), [(1, False), (10, True)])
def test_three_steps_equal_the_slow_reference(gain, clipped):
    """The published options except a rate so large that clipping, decay and power iterations all show."""
    ours, slow = make(), make()
    options = TuningOptions(steps=3, learning_rate=0.05, seed=4)
    steps = list(Tuning(ours, options).steps(amplified(ours, gain), clip(), SIGMAS, "eps"))
    expected = slow_tune(slow, gain, 3, 0.05, 4)
    assert [(s.loss, s.grad_norm) for s in steps] == [pytest.approx(e, rel=1e-5) for e in expected]
    assert [s.grad_norm > 1 for s in steps] == [clipped] * 3
    for (name, a), b in zip(ours.state_dict().items(), slow.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_loss_goes_down():
    """On the same noise and timesteps: seeds repeat, so the average before and after compare."""
    trainables = make()
    first = [s.loss for s in run(trainables, steps=30)]
    second = [s.loss for s in run(trainables, steps=30)]
    assert sum(second) < sum(first)


def test_same_seed_same_weights_other_seed_other_weights():
    states = []
    for seed in (1, 1, 2):
        trainables = make()
        run(trainables, seed=seed)
        states.append(trainables.export())
    for name in states[0].queries:
        assert torch.equal(states[0].queries[name], states[1].queries[name])
    assert any(not torch.equal(states[0].queries[n], states[2].queries[n]) for n in states[0].queries)


@pytest.mark.parametrize("stam_init", ["random", "zero-query", "clamp", "Tune-A-Video"])
def test_going_on_from_exported_weights_is_the_same_function(stam_init):
    options = InflateOptions(stam_init=stam_init)
    trainables = make(options)
    run(trainables, steps=6)
    for _ in range(300):
        trainables.power_iteration()
    resumed = make(options, trainables.export())
    x, sigma = clip(), SIGMAS[300].expand(3)
    with torch.no_grad():
        a, b = denoiser(trainables)(x, sigma), denoiser(resumed)(x, sigma)
    torch.testing.assert_close(a, b, rtol=0, atol=2e-4)


@pytest.mark.parametrize("poisoned", [1, 3])
def test_nan_stops_and_keeps_the_last_finite_weights(poisoned):
    trainables = make()
    calls = []

    def denoise(x, sigma, frames):
        calls.append(1)
        out = denoiser(trainables)(x, sigma)
        return out * float("nan") if len(calls) == poisoned else out

    with pytest.raises(DivergedError, match=f"step {poisoned}") as caught:
        run(trainables, denoise=denoise)
    assert caught.value.step == poisoned
    good = make()
    run(good, steps=poisoned - 1) if poisoned > 1 else None
    for a, b in zip(trainables.parameters(), good.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_infinite_gradient_stops_too():
    trainables = make()

    def denoise(x, sigma, frames):
        out = denoiser(trainables)(x, sigma)
        return out + (out - out.detach()) * float("inf") if len(out) else out

    with pytest.raises(DivergedError):
        run(trainables, denoise=denoise)


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"steps": -3}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}]
)
def test_impossible_options(options):
    name, value = next(iter(options.items()))
    with pytest.raises(EI2Error, match=f"{name.replace('_', ' ')} is {value}"):
        TuningOptions(**options)


@pytest.mark.parametrize(
    "options",
    [{"attention": "SDPA"}, {"temporal": "GRU"}, {"stam_init": "ones"}, {"coarse_ratio": 0}, {"group_norm": "batch"}],
)
def test_impossible_inflate_options(options):
    with pytest.raises(EI2Error, match="must be"):
        InflateOptions(**options)


@pytest.mark.parametrize("timestep", [0, 1, 400, 999])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_loss_is_that_of_the_models_own_prediction(prediction, timestep):
    """Recovering eps or v from x0 gives the loss of the raw output, written in VP units."""
    clean, noise, raw = (torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(s)).double() for s in range(3))
    sigma = sd_sigmas()[timestep]
    alpha, beta = 1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5
    z = alpha * clean + beta * noise
    target = noise if prediction == "eps" else alpha * noise - beta * clean
    x0 = (z - beta * raw) / alpha if prediction == "eps" else alpha * z - beta * raw
    ours = diffusion_loss(prediction, add_noise(clean, noise, sigma), x0, clean, noise, sigma)
    assert float(ours) == pytest.approx(float(F.mse_loss(raw, target)), rel=2e-3)


def test_fresh_banks_repeat_by_seed():
    a, b, c = (fresh_bank(spec(), InflateOptions(seed=s)).folded("random") for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_every_run_of_a_long_clip_is_seen():
    """And with its own noise only; a clip that fits is drawn as if there were no windows."""
    whole, generator = torch.arange(7.0).view(7, 1, 1, 1), torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(200):
        frames, noise, _ = draw(whole, SIGMAS, generator, 3)
        assert len(frames) == len(noise) == 3
        seen.add(frames)
    assert seen == {range(first, first + 3) for first in range(5)}
    drawn = [draw(whole, SIGMAS, torch.Generator().manual_seed(1), window) for window in (7, 100)]
    assert all(frames == range(7) for frames, _, _ in drawn)
    assert all(torch.equal(a, b) for a, b in zip(drawn[0][1:], drawn[1][1:], strict=True))


def test_the_model_is_told_which_frames_it_sees():
    trainables, told = make(), []

    def denoise(x, sigma, frames):
        told.append(frames)
        return denoiser(trainables)(x, sigma)

    run(trainables, denoise=denoise, steps=6, window=2)
    assert set(told) == {range(2), range(1, 3)}


@pytest.mark.parametrize(
    ("preset", "given", "expected"),
    [
        ("paper", (500, 3e-5), (500, 3e-5)),
        ("fast", (500, 3e-5), (200, 7.5e-5)),
        ("fast", (120, 3e-5), (120, 7.5e-5)),
        ("fast", (500, 1e-4), (200, 1e-4)),
        ("strong change", (500, 3e-5), (300, 3e-5)),
        ("strong change", (301, 1e-3), (301, 1e-3)),
    ],
)
def test_a_preset_fills_what_was_not_touched(preset, given, expected):
    steps, rate = given
    options = TuningOptions.from_preset(preset, steps=steps, learning_rate=rate, window=3)
    assert (options.steps, options.learning_rate, options.window) == (*expected, 3)


def test_fast_moves_as_far_as_the_paper():
    paper, fast = (TuningOptions.from_preset(name, steps=500, learning_rate=3e-5) for name in ("paper", "fast"))
    assert fast.steps * fast.learning_rate == pytest.approx(paper.steps * paper.learning_rate)


def test_an_unknown_preset_is_refused():
    with pytest.raises(EI2Error, match="preset is 'slow': it must be one of fast, paper, strong change"):
        TuningOptions.from_preset("slow", steps=500, learning_rate=3e-5)
