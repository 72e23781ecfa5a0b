"""'One-Shot Tune': learns one clip under its caption."""

import logging
from dataclasses import replace

from ..ei2_modules.config import TuningOptions
from ..ei2_modules.weights import check_fits
from .host import conditioning, storage
from .host import latents as host_latents
from .host.api import CATEGORY, LOSS_MAP, WEIGHTS, check_choices, io
from .host.patch import inflate, inflated_state, refuse_foreign_attention
from .host.progress import TuningProgress
from .host.training import TuningRun


class OneShotTune(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EI2OneShotTune",
            display_name="One-Shot Tune",
            category=CATEGORY,
            description="Tunes the query projections and the temporal modules on one clip and its caption, so that "
            "edits keep the clip's motion. Stopped early, it keeps what it has in output/ei2.",
            inputs=[
                io.Model.Input("model", tooltip="From Inflate UNet to EI²."),
                io.Latent.Input("latents", tooltip="The clip's frames from VAE Encode; 8 frames is the paper's size."),
                io.Conditioning.Input("positive", tooltip="The clip's own caption: what it shows now, not the edit."),
                io.Int.Input(
                    "steps",
                    default=500,
                    min=1,
                    max=100_000,
                    tooltip="500 is the paper's. Fewer (300) leave more freedom for changes of style.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=3e-5,
                    min=1e-7,
                    max=1.0,
                    step=1e-6,
                    round=1e-8,
                    tooltip="AdamW, constant. 3e-5 is the paper's.",
                ),
                io.Int.Input(
                    "seed",
                    default=33,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Of noise and timesteps. Same seed, same result; a new one tunes again.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "bf16", "fp16", "fp32"],
                    default="auto",
                    tooltip="What the frozen model computes in; trained weights are always fp32. auto: bf16 where the "
                    "GPU has it, fp16 on older ones, fp32 on a CPU.",
                ),
                io.Combo.Input(
                    "gradient_checkpointing",
                    options=["auto", "on", "off"],
                    default="auto",
                    tooltip="on: much less memory, about a third more time. auto: only when memory would not suffice.",
                ),
                WEIGHTS.Input(
                    "weights",
                    optional=True,
                    tooltip="Go on from these weights instead of from the start (the optimiser starts fresh).",
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="For previews: with it they are made under guidance 7.5."
                ),
                io.Vae.Input("vae", optional=True, tooltip="For sharp previews; without it they are rough."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The tuned model."),
                WEIGHTS.Output(display_name="EI2_WEIGHTS", tooltip="For Save EI² Weights."),
                LOSS_MAP.Output(display_name="LOSS_MAP", tooltip="For Plot Loss Graph (needs 2 steps or more)."),
            ],
        )

    @classmethod
    def validate_inputs(cls, precision=None, gradient_checkpointing=None):
        return check_choices(cls, precision=precision, gradient_checkpointing=gradient_checkpointing)

    @classmethod
    def execute(
        cls, model, latents, positive, steps, learning_rate, seed, precision, gradient_checkpointing,
        weights=None, negative=None, vae=None,
    ):  # fmt: skip
        state = inflated_state(model, "One-Shot Tune")
        refuse_foreign_attention(model, state)
        samples = host_latents.clip_latents(latents, state.spec)
        _check_captions(state.spec, positive, negative)
        start = weights or state.weights
        if start is not None:
            check_fits(start.header, state.spec, state.options, state.fingerprint)
            state = replace(state, options=replace(state.options, stam_init=start.options().stam_init))
        run = TuningRun(state, TuningOptions(steps, learning_rate, seed), precision, gradient_checkpointing)
        progress = TuningProgress(model, steps, vae)
        try:
            run.execute(model, samples, positive, negative, start, progress.step)
            tuned = run.weights()
            return io.NodeOutput(inflate(model, state.options, tuned), tuned, {"loss": run.losses})
        except BaseException:
            _keep(run)
            raise


def _check_captions(spec, positive, negative) -> None:
    for name, value in (("positive", positive), ("negative", negative)):
        if value is not None:
            conditioning.check(value, name, spec)
            conditioning.check_for_tuning(value, name)


def _keep(run: TuningRun) -> None:
    """Save what a run that is being stopped has learnt, and say where. Never hides why it is being stopped."""
    if not run.losses:
        return
    try:
        path = storage.save(run.weights(), "unfinished", "output/ei2")
        logging.warning("EI²: One-Shot Tune stopped; the weights of step %d are kept in %s", len(run.losses), path)
    except Exception as error:
        logging.error("EI²: One-Shot Tune stopped, and its weights could not be kept: %s", error)
