"""One run of the quality benchmark: a clip is tuned, inverted and edited through the pack's own nodes."""

import math
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path

import torch

from ei2_modules.demo import scenes
from ei2_modules.metrics import figures as metrics
from tools.demo.video_files import picture
from tools.server.api_prompt import ALWAYS_TUNE
from tools.server.in_process import pack

from .cases import BY_KIND, KIND_OF, KINDS, METHODS, Case, Settings
from .measures import Truth, covariate_shift, measure

demo_model, keys, sampling = (pack(f"nodes.host.{name}") for name in ("demo_model", "inflating.keys", "sampling.run"))
inflate_unet, one_shot_tune, null_text, sampler, carry_key_frame = (
    pack(f"nodes.{name}") for name in ("inflate_unet", "one_shot_tune", "null_text", "sampler", "carry_key_frame")
)
inflating, record, guider, prompt_edit = (
    pack(f"nodes.host.{name}")
    for name in ("inflating.inflate", "sampling.record", "control.guider", "control.prompt_edit")
)
Trajectory, control_options = (
    pack("nodes.host.sampling.trajectory").Trajectory,
    pack("ei2_modules.attention.control.options"),
)
contact_sheet = pack("nodes.host.side_by_side").contact_sheet
schedule, unet = pack("ei2_modules.diffusion.schedule"), pack("nodes.host.inflating.unet")

_truth = cache(Truth)  # the same for every method and seed
AGAIN = 0.4  # strength of the pass after a key frame was carried
PROBE_STEPS = 2  # of the inversion in which temporal modules are watched: timesteps 1 and 501


class Editor:
    """The shipped model, and what is made of it for a clip."""

    def __init__(self):
        self.model, self.clip, self.vae = demo_model.load()
        self.nothing = self.encode("")

    def encode(self, text: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def grid(self, steps: int):
        return schedule.ddim_schedule(unet.sigma_table(self.model), steps)

    def run(self, case: Case, name: str, seed: int, settings: Settings, pictures: Path | None = None) -> dict:
        """Everything there is to say about one method on one clip; the edited clips are saved if asked for."""
        images, masks = scenes.render(list(case.clip))
        latents = self.vae.encode(images)
        method = METHODS[name]
        model, made = self.made(case.clip, case.caption, name, seed, settings.steps, settings.learning_rate)
        result = dict(made)
        source = self.encode(case.caption if (method.inversion or settings.inversion) == "caption" else "")
        with _timed(result, "invert_s"):
            latent = self.inverted(model, latents, source, settings.ddim_steps)
        clips = {"reconstruction": self.sample(model, latent["samples"], source, 1.0, settings)}
        null_text = None
        if method.null_text:
            with _timed(result, "null_text_s"):
                null_text = self.null_text(model, latent, case.caption, settings.guidance, **method.null_text)
        with _timed(result, "edit_s"):
            for kind in KINDS:
                prompt = case.prompt(kind, settings.weight)
                clips[kind] = self.edit(model, latent, case.caption, prompt, settings.guidance, name, kind, null_text)
        result["peak_mib"] = _peak()
        result["autoencoder_db"] = _mean_psnr(self.decode(latents), images)
        decoded = {kind: self.decode(clip) for kind, clip in clips.items()}
        if method.key_frame:
            prompt = case.prompt("shape", settings.weight)
            decoded["shape"] = self.carried(model, decoded["shape"], images, masks, prompt, settings)
        result["reconstruction_db"] = _mean_psnr(decoded["reconstruction"], images)
        result["edits"] = {kind: measure(decoded[kind], _truth(case.clip, case.edits[kind])) for kind in KINDS}
        if pictures:
            keep({"source": images, **decoded}, pictures)
        return finite(result)

    @lru_cache(maxsize=1)  # noqa: B019 - one editor a worker
    def made(self, clip: tuple, caption: str, name: str, seed: int, steps: int, rate: float) -> tuple:
        """The model, inflated and tuned, and what was measured on the way. Runs that differ only later share it."""
        _forget_peak()
        latents, model, result = self.vae.encode(scenes.render(list(clip))[0]), self.inflated(name, seed), {}
        result["before"] = self.probe(model, latents)
        with _timed(result, "tune_s"):
            if METHODS[name].tuned and steps:
                model = self.tuned(model, latents, caption, steps, rate, seed)
        return model, result | {"after": self.probe(model, latents)}

    def inflated(self, name: str, seed: int):
        m = METHODS[name]
        execute = inflate_unet.InflateUNet.execute
        return execute(self.model, m.mode, m.ratio, m.temporal, m.attention, m.init, seed).args[0]

    def tuned(self, model, latents, caption: str, steps: int, rate: float, seed: int):
        caption, clean = self.encode(caption), {"samples": latents}
        execute = partial(one_shot_tune.OneShotTune.execute, **ALWAYS_TUNE)
        return execute(model, clean, caption, steps, rate, seed, "auto", "off").args[0]

    def sample(self, model, noise, positive, guidance: float, settings: Settings):
        grid = self.grid(settings.ddim_steps)
        return sampling.sample(model, noise, positive, self.nothing, guidance, grid, _silent)

    def inverted(self, model, latents, source, steps: int) -> dict:
        """The LATENT that DDIM Invert Video gives, whose round trip is not wanted here."""
        grid, trajectory = self.grid(steps), Trajectory(0)
        noise, _ = sampling.invert(model, latents, source, grid, 0, _silent, trajectory)
        inflated = inflating.inflated_of(model, "")
        prediction, print_ = inflated.spec.prediction, inflated.fingerprint
        inversion = record.Inversion(grid.steps, grid.sigma_end, prediction, print_, trajectory)
        return record.with_inversion({"samples": latents}, noise, inversion)

    def null_text(self, model, latent: dict, caption: str, cfg: float, inner_steps: int, branch: str, steps: str):
        execute, text = null_text.NullTextInversion.execute, self.encode(caption)
        return execute(model, latent, text, self.nothing, cfg, inner_steps, 1e-2, 1e-5, "shared", branch, steps).args[0]

    def edit(self, model, latent: dict, caption: str, prompt: str, cfg: float, name: str, kind: str, fitted=None):
        """The edited latents, through the nodes."""
        method, control, positive = METHODS[name], None, self.encode(prompt)
        if method.control:
            edit = prompt_edit.make_prompt_edit(self.clip, caption, prompt, "", "")
            options = control_options.ControlOptions.of_kind(
                KIND_OF[kind] if method.control == BY_KIND else method.control,
                "along the inversion" if fitted is None else "null text",
            )
            control = guider.Control(edit, replace(options, **method.change), null_text=fitted)
        execute = sampler.EI2Sampler.execute
        return execute(model, positive, self.nothing, latent, cfg, 0, 0.0, control=control).args[0]["samples"]

    def carried(self, model, edited, images, masks, prompt: str, settings: Settings):
        """The second pass of an edit of shape: a frame that is carried through the clip, and sampled again."""
        clip = carry_key_frame.CarryKeyFrame.execute(edited, images, masks, -1, 0.05).args[0]
        text = self.encode(prompt)
        latent = self.inverted(model, self.vae.encode(clip), text, settings.ddim_steps)
        execute = sampler.EI2Sampler.execute
        again = execute(model, text, self.nothing, latent, settings.guidance, 0, 0.0, strength=AGAIN).args[0]
        return self.decode(again["samples"])

    def decode(self, latents):
        return self.vae.decode(latents).float().clamp(0, 1)

    def probe(self, model, latents) -> dict | None:
        """Mean and covariance shift at each temporal module while the source clip is inverted, and their means."""
        banks = model.get_additional_models_with_key(keys.OURS)
        if not banks:
            return None
        found, handles = {}, []
        for path, module in banks[0].model.items():
            record = found.setdefault(path, [])
            hook = lambda _, args, out, record=record: record.append(covariate_shift(args[0], out))  # noqa: E731
            handles.append(module.register_forward_hook(hook))
        try:
            sampling.invert(model, latents, self.nothing, self.grid(PROBE_STEPS), 0, _silent)
        finally:
            for handle in handles:
                handle.remove()
        names = ("mean_shift", "covariance_shift")
        modules = [{n: sum(r[n] for r in records) / len(records) for n in names} for records in found.values()]
        return {n: sum(m[n] for m in modules) / len(modules) for n in names} | {
            f"largest_{n}": max(m[n] for m in modules) for n in names
        }


editor = cache(Editor)  # one a process


def keep(clips: dict, path: Path) -> None:
    """One picture: a row a clip."""
    rows = [[picture(frame) for frame in clip] for clip in clips.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, cell=scenes.SIZE, gap=0).save(path)


@contextmanager
def _timed(result: dict, name: str):
    began = time.monotonic()
    yield
    result[name] = time.monotonic() - began


def _silent(*_) -> None: ...


def _mean_psnr(images, reference) -> float:
    return metrics.psnr(images, reference).mean().item()


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float | None:
    """MiB of the device since `_forget_peak`; of the whole process on a CPU, where the system tells."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def finite(value):
    """None for what is no number: JSON has no nan. Others with five digits behind the point."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
