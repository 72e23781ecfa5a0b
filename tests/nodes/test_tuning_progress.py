"""What is seen of a tuning while it runs, and that seeing it costs little and changes nothing."""

from types import SimpleNamespace

import comfy.model_management
import latent_preview
import numpy as np
import pytest
import torch

from ..same import same
from .mini import caption, clip, inflate, invert, model, pack, sample, tune

plots, tuning_progress = pack("nodes.host.plots"), pack("nodes.host.tuning.preview")


class FakeVAE:
    """Decodes by repeating; `weight` in bytes is what the host would have to load."""

    vae_dtype, device, patcher, weight = torch.float32, torch.device("cpu"), property(lambda self: self), 1

    def model_size(self):
        return self.weight

    def memory_used_decode(self, shape, dtype):
        return 1

    def decode(self, samples):
        return samples[:, :3].movedim(1, -1).repeat_interleave(8, 1).repeat_interleave(8, 2)


@pytest.fixture
def shown(monkeypatch):
    """(step, total, picture) of every update of the bar."""
    found = []
    monkeypatch.setattr(tuning_progress, "TELL_EVERY", 1e9)  # between pictures the curve grows, every second
    update = lambda self, value, total, preview=None: found.append((value, total, preview and preview[1]))  # noqa: E731
    monkeypatch.setattr("comfy.utils.ProgressBar.update_absolute", update)
    return found


@pytest.fixture
def told(monkeypatch):
    """The texts in the node."""
    found = []
    monkeypatch.setattr(tuning_progress, "show_text", found.append)
    monkeypatch.setattr(tuning_progress, "TELL_EVERY", 0.0)
    return found


@pytest.mark.parametrize("every, at", [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3]), (9, [])])
def test_pictures_come_every_so_many_steps(shown, monkeypatch, every, at):
    looks, look = [], tuning_progress.TuningProgress._look
    monkeypatch.setattr(
        tuning_progress.TuningProgress,
        "_look",
        lambda self, *args: looks.append(len(self.run.losses)) or look(self, *args),
    )
    tune(inflate(model()), steps=4, vae=FakeVAE(), preview_every=every)
    assert [(value, total) for value, total, _ in shown] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert looks == at


def test_a_picture_has_source_sample_and_losses(shown):
    tune(inflate(model()), clip(5), steps=2, vae=FakeVAE(), preview_every=2)
    picture = np.asarray(shown[-1][2])
    assert picture.shape == (20 + plots.WIDTH // 2 + 150, plots.WIDTH, 3)
    decoded = FakeVAE().decode(model().model.process_latent_out(model().model.process_latent_in(clip(5)["samples"])))
    middle = tuning_progress.to_pil(decoded[2]).resize((plots.WIDTH // 2, plots.WIDTH // 2))
    source, sample = picture[20:276, :256], picture[20:276, 256:]
    assert np.abs(source.astype(int) - np.asarray(middle)).max() <= 1, "the middle frame of the source"
    assert np.abs(sample.astype(int) - source).mean() > 1
    line = tuple(int(plots.LINE[i : i + 2], 16) for i in (1, 3, 5))
    assert (picture[276:] == line).all(axis=-1).any(), "the curve"


def test_without_a_vae_the_hosts_rough_preview_serves(shown, monkeypatch):
    tune(inflate(model()), steps=1, preview_every=1)
    assert shown[-1][2].size == (plots.WIDTH, 150), "previews are off: the losses alone"
    previewer = latent_preview.Latent2RGBPreviewer([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    monkeypatch.setattr(latent_preview, "get_previewer", lambda *args: previewer)
    tune(inflate(model()), steps=1, preview_every=1)
    assert shown[-1][2].size == (plots.WIDTH, 20 + plots.WIDTH // 2 + 150)


def test_a_vae_that_would_push_the_model_out_is_not_used(monkeypatch):
    vae = FakeVAE()
    vae.weight = 2**50
    monkeypatch.setattr(FakeVAE, "decode", lambda *args: pytest.fail("the host would unload the UNet"))
    assert len(tune(inflate(model()), steps=2, vae=vae, preview_every=1)[2]["loss"]) == 2


@pytest.mark.parametrize("seen", [{"vae": FakeVAE()}, {"negative": caption(3)}, {"validation": caption(4)}])
def test_looking_does_not_change_the_result(seen):
    m = inflate(model())
    a, b = tune(m, steps=3, preview_every=9)[1], tune(m, steps=3, preview_every=1, **seen)[1]
    assert same(a, b)


def test_the_sample_shows_the_validation_text(shown):
    pictures = []
    for validation in (None, caption(), caption(4)):
        tune(inflate(model()), steps=1, vae=FakeVAE(), preview_every=1, validation=validation)
        pictures.append(np.asarray(shown[-1][2]))
    assert (pictures[0] == pictures[1]).all(), "without it, the caption"
    assert (pictures[0] != pictures[2]).any()


class Clock:
    """Time that passes only in steps and pictures."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def progress_by_the_clock(monkeypatch, steps, checkpointing=False):
    clock = Clock()
    monkeypatch.setattr(tuning_progress, "time", clock)
    job = SimpleNamespace(options=pack("ei2_modules.config").TuningOptions(steps))
    run = SimpleNamespace(job=job, demand=SimpleNamespace(checkpointing=checkpointing), losses=[])
    progress = tuning_progress.TuningProgress(model(), run, None)
    monkeypatch.setattr(progress, "_picture", lambda: None)
    monkeypatch.setattr(progress, "_tell", progress._tell if steps == 100 else lambda number: None)
    return clock, progress


@pytest.mark.parametrize("step, picture, steps", [(1.0, 4.0, 500), (0.3, 0.9, 500), (0.1, 10.0, 1000), (1.0, 0.01, 50)])
def test_pictures_choose_moments_that_cost_little(monkeypatch, step, picture, steps):
    clock, progress = progress_by_the_clock(monkeypatch, steps)
    seen = []

    def look(*args):
        seen.append(number)
        clock.now += picture

    monkeypatch.setattr(progress, "_look", look)
    monkeypatch.setattr(progress, "_tell", lambda *args: None)
    for number in range(1, steps + 1):
        clock.now += step
        progress.after_step(number, None, None)
    assert seen and progress.spent <= max(0.05 * clock.now, picture)
    assert len(seen) > 3 or steps * step * 0.05 < 4 * picture


@pytest.mark.parametrize("checkpointing, first", [(False, 33), (True, 22)])
def test_the_first_picture_waits_until_it_is_cheap(monkeypatch, checkpointing, first):
    """Four passes, of 2.5 or 3.7 to a step of one second, are 1.6 or 1.08 s: five percent of 32 and of 21.6 s."""
    clock, progress = progress_by_the_clock(monkeypatch, 500, checkpointing)
    looks = []
    monkeypatch.setattr(progress, "_look", lambda *args: looks.append(clock.now))
    for number in range(1, first + 1):
        clock.now += 1.0
        progress.after_step(number, None, None)
    assert looks == [first]


def test_the_time_left_is_that_of_the_steps_left(monkeypatch, told):
    clock, progress = progress_by_the_clock(monkeypatch, 100)
    progress.run.losses = [1.0]
    monkeypatch.setattr(progress, "_due", lambda number: False)
    clock.now += 3 * 0.4
    progress.after_step(3, None, None)
    assert told == ["step 3 of 100, 2.5 steps/s, 39 s left, loss 1.0000 (mean of 1)"]


def test_a_short_run_shows_its_end(shown):
    tune(inflate(model()), steps=2, vae=FakeVAE())
    assert shown[-1][2] is not None


def test_rate_time_left_and_loss_are_told(told):
    tune(inflate(model()), steps=3)
    assert [text.split(",")[0] for text in told] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    assert "steps/s" in told[0] and "left" in told[0] and "left" not in told[-1] and "loss" in told[-1]


def test_the_middle_of_cancel_is_the_hosts(monkeypatch):
    def interrupted():
        raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(inflate(model()))


CURVES = {"one value": [1.0], "equal values": [2.0] * 5, "many": [1 / (i + 1) for i in range(1000)], "zero": [0.0, 0.0]}


@pytest.mark.parametrize("values", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("dots", [True, False])
def test_every_curve_can_be_drawn(values, dots):
    assert plots.curve(values, "title", dots=dots).size == (plots.WIDTH, 150)


def test_running_mean():
    assert plots.running_mean([1.0, 3.0, 5.0], reach=2) == [1.0, 2.0, 4.0]


def breaks(*args):
    raise RuntimeError("a previewer of another pack")


PREVIEWERS = {
    "raises": breaks,
    "a tensor, as VideoHelperSuite": lambda *args: torch.zeros(1, 8, 8, 3),
    "another tensor": lambda *args: torch.zeros(8, 8),
    "nothing": lambda *args: None,
    "a tuple of two": lambda *args: ("JPEG", None),
    "text": lambda *args: "picture",
    "three things": lambda *args: ("JPEG", torch.zeros(8, 8, 3), 512),
}


@pytest.mark.parametrize("gives", PREVIEWERS.values(), ids=PREVIEWERS)
@pytest.mark.parametrize("work", ["tune", "invert", "sample"])
def test_no_previewer_stops_the_work(monkeypatch, shown, gives, work):
    previewer = SimpleNamespace(decode_latent_to_preview=gives, decode_latent_to_preview_image=gives)
    m = inflate(model())
    noise = invert(m)[0]
    monkeypatch.setattr(latent_preview, "get_previewer", lambda *args: previewer)
    shown.clear()
    if work == "tune":
        tune(m, steps=2, preview_every=1)
    else:
        invert(m) if work == "invert" else sample(m, noise)
    assert shown, "the bar moves on"
    of_latents = shown[:-1] if work == "invert" else shown  # an inversion ends with a picture of its own
    assert work == "tune" or all(preview is None for *_, preview in of_latents)


@pytest.mark.parametrize("work", ["tune", "invert", "sample"])
def test_no_bar_stops_the_work(monkeypatch, work):
    """Other packs put hooks of their own in the place of the host's bar."""
    asked = []
    m = inflate(model())
    noise = invert(m)[0]
    monkeypatch.setattr("comfy.utils.ProgressBar.update_absolute", lambda *args: asked.append(args) or breaks())
    works = {"tune": lambda: tune(m, preview_every=1), "invert": lambda: invert(m), "sample": lambda: sample(m, noise)}
    works[work]()
    assert len(asked) == 1, "not again after a fault"


@pytest.mark.parametrize("work", ["tune", "invert", "sample"])
def test_a_cancel_reaches_a_run_without_a_bar(monkeypatch, work):
    m = inflate(model())
    noise = invert(m)[0]
    works = {"tune": lambda: tune(m), "invert": lambda: invert(m), "sample": lambda: sample(m, noise)}
    monkeypatch.setattr("comfy.utils.ProgressBar.update_absolute", breaks)
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        works[work]()


def running_on(monkeypatch, client_id, send):
    """What says something in node 1 of a server whose page is `client_id`."""
    progress = pack("nodes.host.progress")
    server = SimpleNamespace(client_id=client_id, send_progress_text=send)
    monkeypatch.setattr(progress, "get_executing_context", lambda: SimpleNamespace(node_id="1"))
    monkeypatch.setitem(progress.sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    return progress


def test_no_text_in_the_node_stops_the_work(monkeypatch):
    running_on(monkeypatch, "a page", breaks).say("step 1 of 2")


@pytest.mark.parametrize("client, told", [("a page", [("step", "1", "a page")]), (None, [])])
def test_text_in_the_node_is_for_the_page_that_runs_it(monkeypatch, client, told):
    """The host sends to every page what names none."""
    sent = []
    running_on(monkeypatch, client, lambda *args: sent.append(args)).show_text("step")
    assert sent == told


def test_a_clock_that_stands_still_stops_nothing(monkeypatch, told):
    """On Windows two steps may fall into one tick."""
    monkeypatch.setattr(tuning_progress, "time", Clock())
    assert len(tune(inflate(model()), steps=2)[2]["loss"]) == 2
    assert "steps/s" in told[0]


class BadVAE(FakeVAE):
    """asked: what it was asked for."""

    def __init__(self, fault):
        self.fault, self.asked = fault, []

    def decode(self, samples):
        self.asked.append(samples.shape)
        return self.fault()


FAULTS = {"it raises": breaks, "no picture": lambda: None, "text": lambda: "picture"}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_vae_that_fails_leaves_the_rough_preview(monkeypatch, shown, fault):
    previewer = latent_preview.Latent2RGBPreviewer([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    monkeypatch.setattr(latent_preview, "get_previewer", lambda *args: previewer)
    vae = BadVAE(fault)
    tune(inflate(model()), steps=2, vae=vae, preview_every=1)
    assert shown[-1][2].size == (plots.WIDTH, 20 + plots.WIDTH // 2 + 150)
    assert len(vae.asked) == 1, "not again after a fault"


def test_a_look_that_failed_is_not_tried_again(monkeypatch):
    asked = []
    monkeypatch.setattr(tuning_progress.TuningProgress, "_look", lambda *args: asked.append(args) or breaks())
    assert len(tune(inflate(model()), steps=3, vae=FakeVAE(), preview_every=1)[2]["loss"]) == 3
    assert len(asked) == 1


@pytest.mark.parametrize("where", ["get_previewer", "_look", "_picture"])
def test_no_fault_of_a_preview_stops_a_tuning(monkeypatch, where):
    owner = latent_preview if where == "get_previewer" else tuning_progress.TuningProgress
    monkeypatch.setattr(owner, where, breaks)
    assert len(tune(inflate(model()), steps=2, vae=FakeVAE(), preview_every=1)[2]["loss"]) == 2


@pytest.mark.parametrize("where", ["_look", "_picture"])
def test_a_cancel_in_a_preview_is_a_cancel(monkeypatch, where):
    def cancelled(*args):
        raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(tuning_progress.TuningProgress, where, cancelled)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(inflate(model()), steps=2, vae=FakeVAE(), preview_every=1)
