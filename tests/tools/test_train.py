"""Training of the miniature model: a stopped run ends where an uninterrupted one does."""

from argparse import Namespace
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ei2_modules.demo import scenes
from tools.train import controlnet, loop

from ..same import same

STEPS = 6


def training(folder, stop_at=None):
    """The averaged weights and losses of a small model; stopped by an error at a step, if asked."""
    folder.mkdir(exist_ok=True)
    steps = []

    def loss(models, random):
        if len(steps) == stop_at:
            raise KeyboardInterrupt
        steps.append(1)
        return models["norm"](models["linear"](torch.randn(8, 4, generator=random))).float().square().mean()

    log = {"stages": {}}
    with torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        models = nn.ModuleDict({"linear": nn.Linear(4, 4), "norm": nn.BatchNorm1d(4)})
        share = loop.cosine
        average = loop.train("small", models, loss, STEPS, 0.1, share, Namespace(out=folder, seed=3), log)
    return average.state_dict(), log["stages"]["small"]["losses"], len(steps)


@pytest.fixture
def save_every_step(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1)
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_stopped_run_ends_as_an_uninterrupted_one(tmp_path, save_every_step, stop_at):
    whole, losses, _ = training(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "stopped", stop_at)
    resumed, its_losses, steps = training(tmp_path / "stopped")
    assert steps == STEPS - stop_at
    assert its_losses == losses
    assert same(resumed, whole)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, losses, _ = training(tmp_path)
    again, its_losses, steps = training(tmp_path)
    assert steps == 0 and its_losses == losses
    assert same(again, first)


def test_the_average_is_no_single_step(tmp_path):
    average, *_ = training(tmp_path)
    state = torch.load(tmp_path / "small.pt")
    assert not torch.equal(average["linear.weight"], state["models"]["linear.weight"])


def test_scenes_to_train_the_controlnet_on():
    """About a third, every other one that can, becomes large and black around; none of them is held out."""
    pool, captions = scenes.scenes_to_train_on(1, 400)
    random = Random(1)
    found = [controlnet.cut_out(random, *pair) for pair in zip(pool, captions, strict=True)]
    changed = [(scene, words) for (scene, words), before in zip(found, pool, strict=True) if scene != before]
    assert 0.25 * 400 < len(changed) < 0.45 * 400
    assert all(len(scene.things) == 1 and scene.background == "black" for scene, _ in changed)
    assert all(scene.bar is None for scene, _ in changed)
    assert all(words == scenes.caption(scene) for scene, words in changed)
    assert not any(scenes.held_out(scene) or scene.things[0].colour == "black" for scene, _ in changed)
    assert all(words == before for (scene, words), before in zip(found, captions, strict=True) if scene in pool)
    assert max(scene.things[0].radius for scene, _ in changed) > 0.42


def test_the_controlnet_sees_edges_as_the_host_hands_them_on():
    """White on black, twice as wide as the picture, and only where something is."""
    picture, mask = scenes.render([scenes.Scene((scenes.Thing("circle", "white"),), "black")])
    found = controlnet.edges(2 * picture.movedim(-1, 1) - 1, torch.Generator().manual_seed(0))
    assert found.shape == (1, 3, 128, 128) and set(found.unique().tolist()) == {0.0, 1.0}
    ring = (mask > 0.02) & (mask < 0.98)
    near = F.max_pool2d(ring[None].float(), 3, 1, 1)[0].bool()
    assert (
        found[0, 0, ::2, ::2].bool()[~near[0]].sum() == 0 and found[0, 0, ::2, ::2].bool()[ring[0]].float().mean() > 0.3
    )


def test_half_a_state_is_never_left(tmp_path, monkeypatch):
    """A crash in the middle of a save leaves the state before it."""
    path = tmp_path / "state.pt"
    loop.keep({"step": 1}, path)

    def crash(state, target):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError):
        loop.keep({"step": 2}, path)
    assert torch.load(path) == {"step": 1}


def test_a_folder_belongs_to_one_training(tmp_path):
    options = {"out": tmp_path / "new", "what": "model", "seed": 1, "scenes": 100}
    options |= {"autoencoder_steps": 10, "unet_steps": 10}
    loop.claim(Namespace(**options))
    loop.claim(Namespace(**options | {"unet_steps": 20}))  # a longer one goes on
    for name in ("what", "seed", "scenes", "autoencoder_steps"):
        with pytest.raises(SystemExit, match="choose another --out"):
            loop.claim(Namespace(**options | {name: 2}))


def test_a_shorter_training_is_not_the_longer_one(tmp_path, monkeypatch):
    training(tmp_path)
    monkeypatch.setitem(globals(), "STEPS", 3)
    with pytest.raises(SystemExit, match="step 6, beyond the 3"):
        training(tmp_path)


@pytest.mark.parametrize("share, later, lowest", [(loop.held, 0.5, 0.01), (loop.level, 1.0, 0.0)])
def test_the_learning_rate_before_the_last_steps_does_not_depend_on_their_number(share, later, lowest):
    short, long = ([share(step, steps) for step in range(8400)] for steps in (12000, 20000))
    assert short == pytest.approx(long, abs=1e-12)
    assert short[0] < 0.02 and short[99] > 0.99 and short[8000] == later  # rises, is full, and then?
    last = [share(step, 12000) for step in range(8400, 12000)]
    assert sorted(last, reverse=True) == last and last[-1] == pytest.approx(lowest, abs=1e-3)
