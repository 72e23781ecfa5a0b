"""One run of the quality benchmark: a clip is tuned, inverted and edited through the pack's own nodes."""

import math
import os
import resource
import time
from pathlib import Path

import torch
from in_process import pack
from quality_cases import KINDS, METHODS, Case
from quality_measures import Truth, covariate_shift, measure

metrics, scenes = pack("ei2_modules.metrics"), pack("ei2_modules.demo.scenes")
demo_model, patch, sampling = (pack(f"nodes.host.{name}") for name in ("demo_model", "patch", "sampling"))
inflate_unet, one_shot_tune = pack("nodes.inflate_unet"), pack("nodes.one_shot_tune")
schedule, unet = pack("ei2_modules.schedule"), pack("nodes.host.unet")

PROBE_STEPS = 2  # of the inversion in which temporal modules are watched: timesteps 1 and 501


class Editor:
    """The shipped model, and what is made of it for a clip."""

    def __init__(self, ddim_steps: int, guidance: float):
        self.ddim_steps, self.guidance = ddim_steps, guidance
        self.model, self.clip, self.vae = demo_model.load()
        self.nothing = self.encode("")

    def encode(self, text: str) -> list:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def grid(self, steps: int):
        return schedule.ddim_schedule(unet.sigma_table(self.model), steps)

    def run(self, case: Case, name: str, seed: int, steps: int, rate: float) -> dict:
        """Everything there is to say about one method on one clip."""
        _forget_peak()
        began = time.monotonic()
        images, _ = scenes.render(list(case.clip))
        latents = self.vae.encode(images)
        model, shift = self.inflated(name, seed, latents)
        result = {"before": shift}
        model, result["tune_s"] = self.tuned(model, case, latents, seed, steps if METHODS[name].tuned else 0, rate)
        if result["tune_s"]:
            result["after"] = self.probe(model, latents)
        now = time.monotonic()
        grid = self.grid(self.ddim_steps)
        noise, _ = sampling.invert(model, latents, self.nothing, grid, 0, _silent)
        back = self.decode(self.sample(model, noise, self.nothing, 1.0))
        result["reconstruction_db"] = _mean_psnr(back, images)
        result["autoencoder_db"] = _mean_psnr(self.decode(latents), images)
        result["edits"] = {}
        for kind in KINDS:
            edited = self.decode(self.sample(model, noise, self.encode(case.prompt(kind)), self.guidance))
            result["edits"][kind] = measure(edited, Truth(case.clip, case.edits[kind]))
        result["edit_s"] = time.monotonic() - now
        result["seconds"], result["peak_mib"] = time.monotonic() - began, _peak()
        return finite(result)

    def inflated(self, name: str, seed: int, latents):
        method = METHODS[name]
        model = inflate_unet.InflateUNet.execute(
            self.model, method.mode, method.ratio, method.temporal, method.attention, method.init, seed
        ).args[0]
        return model, self.probe(model, latents)

    def tuned(self, model, case: Case, latents, seed: int, steps: int, rate: float):
        """(the tuned model, seconds)"""
        if not steps:
            return model, 0.0
        began = time.monotonic()
        out = one_shot_tune.OneShotTune.execute(
            model, {"samples": latents}, self.encode(case.caption), steps, rate, seed, "auto", "off"
        )
        return out.args[0], time.monotonic() - began

    def sample(self, model, noise, positive, guidance: float):
        grid = self.grid(self.ddim_steps)
        return sampling.sample(model, noise, positive, self.nothing, guidance, grid, 0.0, 0, _silent)

    def decode(self, latents):
        return self.vae.decode(latents).float().clamp(0, 1)

    def probe(self, model, latents) -> dict | None:
        """Mean and covariance shift at each temporal module while the source clip is inverted, and their means."""
        banks = model.get_additional_models_with_key(patch.KEY)
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


def _silent(*_) -> None: ...


def _mean_psnr(images, reference) -> float:
    return metrics.psnr(images, reference).mean().item()


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """MiB of the device since `_forget_peak`; of the whole process on a CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def finite(value):
    """None for what is no number: JSON has no nan. Others with five digits behind the point."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
