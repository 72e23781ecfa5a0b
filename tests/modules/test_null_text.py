"""Null-text optimisation against the published loop in its own units, and on a model whose answer is known."""

from itertools import islice, pairwise

import pytest
import torch

from ei2_modules.diffusion.null_text import NullText, NullTextOptions, fit_null_text
from ei2_modules.diffusion.sampling import ddim_step
from ei2_modules.diffusion.schedule import ddim_schedule
from ei2_modules.errors import EI2Error

from .sd_schedule import sd_sigmas

SIGMAS = sd_sigmas(torch.float32)
FRAMES, SHAPE, TOKENS, DIM, CFG = 3, (2, 4, 4), 5, 6, 7.5


def randn(*shape, seed=0):
    """Double: what Adam does near its goal hangs on the last digits."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmas(steps):
    return ddim_schedule(SIGMAS, steps).sigmas


class ToyModel:
    """The noise a frame seems to hold, from its latent and an embedding a frame; seen as x0 from VE units."""

    def __init__(self):
        self.by_text, self.by_x, self.calls = randn(TOKENS * DIM, 32, seed=1) / 4, randn(32, 32, seed=2) / 6, []

    def eps(self, z, embedding):
        """z: VP latents (n, c, h, w); embedding (n, tokens, d)."""
        return 0.1 * torch.tanh(z.flatten(1) @ self.by_x + embedding.flatten(1) @ self.by_text).view(z.shape)

    def __call__(self, x, sigma, embedding):
        assert sigma.shape == (len(x),) and embedding.shape == (len(x), TOKENS, DIM)
        self.calls.append(round(float(sigma[0]), 4))
        s = sigma.view(-1, 1, 1, 1)
        return x - s * self.eps(x / (1 + s**2).sqrt(), embedding)


CAPTION, EMPTY = randn(1, TOKENS, DIM, seed=3), randn(1, TOKENS, DIM, seed=4)


def problem(steps, model=None):
    """A model, and the trajectory that it leaves with guidance: what it samples without."""
    model = model or ToyModel()

    def under_caption(x, sigma):
        return model(x, sigma, CAPTION.expand(len(x), -1, -1))

    x, trajectory = sigmas(steps)[-1] * randn(FRAMES, *SHAPE, seed=5), []
    for sigma, sigma_next in pairwise(sigmas(steps).flip(0)):
        trajectory.append(x)
        x = ddim_step(x, under_caption(x, sigma * torch.ones(FRAMES)), sigma, sigma_next)
    trajectory.append(x)
    model.calls.clear()
    return model, under_caption, trajectory[::-1]


def fit(steps=4, cfg=CFG, done=None, model=None, empty=EMPTY, **options):
    denoise, under_caption, trajectory = problem(steps, model)
    return fit_null_text(
        denoise, under_caption, trajectory, sigmas(steps), empty, cfg, NullTextOptions(**options), done
    )


def last(results):
    return list(results)[-1]


def published(model, trajectory, steps, inner, per_frame, empty, first):
    """The loop of Null-text Inversion and Video-P2P, in VP latents, with Adam written out: the first steps of it."""
    table = sigmas(steps).double()
    abar = 1 / (1 + table**2)
    latents = [(x * a.sqrt()).double() for x, a in zip(trajectory, abar, strict=True)]
    by_text, by_x = model.by_text.double(), model.by_x.double()

    def eps(z, embedding):
        text = embedding.double().expand(FRAMES, -1, -1).flatten(1)
        return 0.1 * torch.tanh(z.flatten(1) @ by_x + text @ by_text).view(z.shape)

    def prev_step(eps, i, z):
        now, before = abar[steps - i], abar[steps - i - 1]
        return before.sqrt() * (z - (1 - now).sqrt() * eps) / now.sqrt() + (1 - before).sqrt() * eps

    z, uncond, found, updates = latents[-1], empty.double().expand(FRAMES if per_frame else 1, -1, -1), [], []
    for i in range(first):
        k = i * 50 / steps  # of the 50 published steps
        cond, m, v = eps(z, CAPTION), 0.0, 0.0
        for j in range(1, inner + 1):
            uncond = uncond.detach().requires_grad_()
            guess = eps(z, uncond)
            loss = (prev_step(guess + CFG * (cond - guess), i, z) - latents[steps - i - 1]).square().mean()
            (g,) = torch.autograd.grad(loss, uncond)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            rate = 1e-2 * (1.0 - k / 100.0)
            uncond = uncond - rate * (m / (1 - 0.9**j)) / ((v / (1 - 0.999**j)).sqrt() + 1e-8)
            if loss < 1e-5 + k * 2e-5:
                break
        uncond = uncond.detach()
        found.append(uncond)
        updates.append(j)
        guess = eps(z, uncond)
        z = prev_step(guess + CFG * (cond - guess), i, z)
    return torch.stack(found), updates


NEAR = CAPTION + 0.1 * EMPTY  # so near that the loss ends some steps early


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize(
    ("steps", "inner", "empty", "first"),
    [(50, 10, EMPTY, 50), (50, 1, EMPTY, 50), (10, 10, EMPTY, 10), (25, 3, EMPTY, 25), (50, 10, NEAR, 14)],
    ids=["Video-P2P", "vid2vid-zero", "10 steps", "25 steps", "ends early"],
)
def test_it_is_the_published_loop(steps, inner, empty, first, per_frame):
    model, _, trajectory = problem(steps)
    expected, updates = published(model, trajectory, steps, inner, per_frame, empty, first)
    results = fit(steps, inner=inner, per_frame=per_frame, empty=empty, model=(ours := ToyModel()))
    found = last(islice(results, first))
    assert found.embeddings.shape == (first, FRAMES if per_frame else 1, TOKENS, DIM)
    torch.testing.assert_close(found.embeddings, expected, rtol=0, atol=1e-8)
    assert list(found.updates) == updates and len(ours.calls) == sum(updates) + 2 * first
    assert (set(updates) == {inner}) is (empty is EMPTY)


class Additive:
    """The noise is the embedding itself, so that the best one for a guided step can be worked out."""

    def __call__(self, x, sigma, embedding):
        return x - sigma.view(-1, 1, 1, 1) * embedding.flatten(1)[:, :, None, None]


def additive_problem(steps, same):
    """Trajectory by a noise of its own at each step (for all frames or for each), and the caption's noise."""
    caption = randn(1, 2, seed=6)
    noises = randn(steps, 1 if same else FRAMES, 2, 1, 1, seed=7).expand(steps, FRAMES, 2, 1, 1)
    x, trajectory = randn(FRAMES, 2, 3, 3, seed=8), []
    for noise, (sigma, sigma_next) in zip(noises, pairwise(sigmas(steps).flip(0)), strict=True):
        trajectory.append(x)
        x = x + (sigma_next - sigma) * noise
    best = (noises[..., 0, 0] - CFG * caption) / (1 - CFG)  # from e + cfg (caption - e) = noise
    return caption, [*trajectory, x][::-1], best


def fit_additive(same, per_frame, steps=3):
    caption, trajectory, best = additive_problem(steps, same)
    results = fit_null_text(
        Additive(),
        lambda x, sigma: Additive()(x, sigma, caption[:, None].expand(len(x), -1, -1)),
        trajectory,
        sigmas(steps),
        torch.zeros(1, 1, 2, dtype=torch.float64),
        CFG,
        NullTextOptions(inner=800, per_frame=per_frame),
    )
    return last(results), best


@pytest.mark.parametrize(("same", "per_frame"), [(True, False), (True, True), (False, True)])
def test_the_known_answer_is_found(same, per_frame):
    """As near as the published end asks for: the first step's loss is below 1e-5 then."""
    found, best = fit_additive(same, per_frame)
    torch.testing.assert_close(found.embeddings[0, :, 0], best[0, : FRAMES if per_frame else 1], rtol=0, atol=1e-3)
    assert all(loss < 2 * (1e-5 + 1e-3 * i / 3) for i, loss in enumerate(found.losses))


def test_one_for_all_frames_is_a_compromise():
    """Of frames that want different embeddings it takes the mean."""
    found, best = fit_additive(same=False, per_frame=False)
    torch.testing.assert_close(found.embeddings[0, :, 0], best[0].mean(0, keepdim=True), rtol=0, atol=1e-2)
    assert found.losses[0] > 1


@pytest.mark.parametrize("inner", [1, 3, 10])
def test_it_comes_closer_to_the_trajectory(inner):
    """Than the empty text alone, which as many steps with no rate to speak of leave where it was."""
    plain = last(fit(10, inner=1, learning_rate=1e-12)).losses
    fitted = last(fit(10, inner=inner)).losses
    assert fitted[-1] < plain[-1] and sum(fitted) < sum(plain)


def test_losses_are_what_sampling_with_it_leaves():
    steps = 6
    model, under_caption, trajectory = problem(steps)
    result = last(fit(steps))
    x = trajectory[-1]
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas(steps).flip(0))):
        each = sigma * torch.ones(FRAMES)
        uncond, cond = model(x, each, result.at(sigma).expand(FRAMES, -1, -1)), under_caption(x, each)
        x = ddim_step(x, uncond + CFG * (cond - uncond), sigma, sigma_next)
        off = (x - trajectory[-2 - i]) / (1 + sigma_next**2).sqrt()
        assert result.losses[i] == pytest.approx(float(off.square().mean()), rel=1e-4)


def test_every_step_is_given_and_can_be_gone_on_from():
    """Stopped after any step, the rest gives what an uninterrupted run gives."""
    whole = list(fit(5))
    assert [len(part.embeddings) for part in whole] == [1, 2, 3, 4, 5]
    for part in whole:
        assert part.cfg == CFG
        assert len(part.losses) == len(part.updates) == len(part.sigmas) == len(part.embeddings)
        again = last(fit(5, done=part))
        assert torch.equal(again.embeddings, whole[-1].embeddings)
        assert (again.losses, again.updates) == (whole[-1].losses, whole[-1].updates)
    assert torch.equal(whole[-1].sigmas, sigmas(5).flip(0)[:-1])


def test_going_on_costs_two_calls_a_step():
    """Caption and empty text, without a gradient."""
    part = list(fit(5))[2]
    model = ToyModel()
    results = fit(5, model=model, done=part)
    for _ in range(3):
        next(results)
    assert len(model.calls) == 6


@pytest.mark.parametrize(("inner", "calls"), [(1, 3), (10, 12)])
def test_calls_a_step(inner, calls):
    """The caption once, each update once, and the step itself."""
    model = ToyModel()
    next(fit(50, model=model, inner=inner))
    assert model.calls == [13.1204] * calls


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
def test_the_callers_gradient_mode(context):
    """Does not matter, and is left alone between steps."""
    with context():
        on = torch.is_grad_enabled()
        results = fit(3)
        first = next(results)
        assert torch.is_grad_enabled() is on
        assert not first.embeddings.requires_grad
        found = last(results)
    assert torch.equal(found.embeddings, last(fit(3)).embeddings)


def test_the_model_gets_no_gradient():
    model = ToyModel()
    model.by_text.requires_grad_()
    list(fit(2, model=model))
    assert model.by_text.grad is None


def test_an_embedding_is_found_by_its_sigma():
    result = NullText(torch.arange(3.0).view(3, 1, 1, 1), torch.tensor([10.0, 4.0, 1.0]), CFG, (0.0,) * 3, (1,) * 3)
    found = [float(result.at(sigma)) for sigma in (13, 10.0, 6.9, torch.tensor(4.0), 0.1)]
    assert found == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(("stop", "taken"), [(0.0, [10] * 4), (1e-4, [10, 9, 1, 1]), (1e6, [1] * 4)])
def test_the_end_of_the_updates_can_be_moved(stop, taken):
    assert list(finished(stop=stop, empty=NEAR).updates) == taken


class NotANumber(ToyModel):
    def eps(self, z, embedding):
        return super().eps(z, embedding) * (float("nan") if len(self.calls) > 40 else 1)


def test_a_loss_that_is_no_number_is_said():
    results, kept = fit(5, model=NotANumber()), []
    with pytest.raises(EI2Error, match=r"stopped at step 4 of 5 \(sigma 0.57\): the loss is not"):
        for part in results:
            kept.append(part)
    assert len(kept) == 3 and kept[-1].embeddings.isfinite().all()


def finished(steps=4, **options):
    return last(fit(steps, **options))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: fit(cfg=1), "cfg is 1"),
        (lambda: fit(cfg=1.0), "cfg is 1"),
        (lambda: fit(cfg=0.5), "cfg is 0.5"),
        (lambda: fit(cfg=float("nan")), "cfg is nan"),
        (lambda: fit(done=finished(cfg=3)), "made for cfg 3, not 7.5"),
        (lambda: fit(done=finished(5)), "other steps than this inversion's 4"),
        (lambda: fit(done=finished(3)), "other steps than this inversion's 4"),
        (lambda: fit(steps=3, done=finished(4)), "other steps than this inversion's 3"),
        (lambda: fit(done=finished(per_frame=True)), r"shape \(3, 5, 6\) a step, this one \(1, 5, 6\)"),
        (lambda: fit_null_text(None, None, [torch.zeros(1)] * 3, sigmas(3), EMPTY, CFG), "3 for 4"),
        (lambda: fit_null_text(None, None, [torch.zeros(1)], sigmas(3)[:1], EMPTY, CFG), "1 for 1"),
        (lambda: fit(inner=0), "inner steps is 0"),
        (lambda: fit(learning_rate=0.0), "learning rate is 0.0"),
        (lambda: fit(learning_rate=float("nan")), "learning rate is nan"),
        (lambda: fit(stop=-1e-5), "early stop is -1e-05"),
    ],
)
def test_what_does_not_fit_is_said(wrong, named):
    with pytest.raises(EI2Error, match=named):
        next(wrong())
