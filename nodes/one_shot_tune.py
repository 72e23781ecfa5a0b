"""'One-Shot Tune': learns one clip under its caption."""

import logging

from ..ei2_modules.config import PAPER, TUNING_PRESETS, WINDOW, TuningOptions
from .host import conditioning
from .host.api import CATEGORY, LOSS_MAP, WEIGHTS, check_choices, io, schema, seed_input
from .host.conditioning import Texts
from .host.graph_ahead import look_ahead
from .host.inflating.animatediff import refuse_motion
from .host.inflating.foreign import refuse_foreign_attention
from .host.inflating.inflate import inflate, inflated_of
from .host.progress import say
from .host.prompt_graph import words_behind
from .host.resume import keeper, states
from .host.resume.keeper import RunKeeper
from .host.resume.key import run_key
from .host.sampling.record import clean_clip
from .host.tuning.preview import TuningProgress
from .host.tuning.run import TuningJob, TuningRun


class OneShotTune(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2OneShotTune",
            search="tune a video, fine-tune, train, one shot",
            expert="precision, gradient_checkpointing, resume, preview_every, autosave_every, window",
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
                seed_input(33, "Of noise and timesteps. Same seed, same result; a new one tunes again."),
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
                io.Combo.Input(
                    "resume",
                    options=keeper.choices(),
                    default=keeper.AUTO,
                    optional=True,
                    tooltip="auto: an earlier tuning of the very same clip, caption, model and options is gone on "
                    "with, or used as it is when it has all its steps. new run: from the start. A file: from there.",
                ),
                io.Conditioning.Input(
                    "validation", optional=True, tooltip="For previews: the edit you are after. Without it the caption."
                ),
                io.Int.Input(
                    "preview_every",
                    default=0,
                    min=0,
                    max=100_000,
                    optional=True,
                    tooltip="Steps between two previews. 0: as often as costs less than 5 % of the time.",
                ),
                io.Int.Input(
                    "autosave_every",
                    default=100,
                    min=0,
                    max=100_000,
                    optional=True,
                    tooltip="Steps between two saves of the whole state (0.9 GB for SD1.5; the newest "
                    f"{states.KEEP} are kept in output/ei2/states). 0: only when the tuning is stopped.",
                ),
                io.Int.Input(
                    "window",
                    default=WINDOW,
                    min=1,
                    max=1000,
                    optional=True,
                    tooltip="Frames that one step sees. Of a longer clip every step takes another run of so many, "
                    "so that memory does not grow with the clip.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(TUNING_PRESETS),
                    default=PAPER,
                    optional=True,
                    tooltip="Sets steps and learning_rate where they are still 500 and 3e-5. fast: 200 steps at "
                    "7.5e-5. paper: as they are. strong change: 300 steps, which hold less of the clip.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The tuned model."),
                WEIGHTS.Output(display_name="EI2_WEIGHTS", tooltip="For Save EI² Weights."),
                LOSS_MAP.Output(display_name="LOSS_MAP", tooltip="For Plot Loss Graph (needs 2 steps or more)."),
            ],
        )

    @classmethod
    def validate_inputs(cls, precision=None, gradient_checkpointing=None, resume=None, preset=None):
        faults = resume is not None and keeper.fault(resume)
        given = {"precision": precision, "gradient_checkpointing": gradient_checkpointing, "preset": preset}
        return faults or check_choices(cls, **given)

    @classmethod
    def execute(
        cls, model, latents, positive, steps, learning_rate, seed, precision, gradient_checkpointing,
        weights=None, negative=None, vae=None, resume=keeper.AUTO, validation=None, preview_every=0,
        autosave_every=100, window=WINDOW, preset=PAPER,
    ):  # fmt: skip
        look_ahead(cls.hidden)
        inflated = inflated_of(model, "One-Shot Tune")
        refuse_foreign_attention(model, inflated.spec, inflated.options)
        refuse_motion(model)
        samples = clean_clip(latents, inflated.spec, "One-Shot Tune")
        texts = Texts(positive, negative, validation)
        _check_texts(inflated.spec, texts, len(samples))
        start = weights or inflated.weights
        given = {"steps": steps, "learning_rate": learning_rate}
        options = TuningOptions.from_preset(preset, **given, seed=seed, window=window)
        if given != {name: getattr(options, name) for name in given}:
            say(f"Preset {preset}: {options.steps} steps at a learning rate of {options.learning_rate:g}.")
        job = TuningJob(
            model,
            inflated.starting_from(start, model),
            samples,
            texts,
            options,
            start,
            precision,
            gradient_checkpointing,
            cls._caption(),
        )
        run = TuningRun(job)
        kept = RunKeeper(run, run_key(job), autosave_every)
        origin = kept.find(resume)
        progress = TuningProgress(model, run, vae, preview_every, kept.saved)

        def after_step(number, clean, sample):
            kept.after_step(number)
            progress.after_step(number, clean, sample)

        try:
            run.execute(origin, after_step)
        except BaseException:
            kept.stopped()
            raise
        kept.finished()
        tuned = run.weights()
        again = inflate(model, job.inflated.options, tuned, inflated.allow_mismatch)
        return io.NodeOutput(again, tuned, {"loss": list(run.losses)})

    @classmethod
    def _caption(cls) -> str | None:
        hidden = cls.hidden
        return (hidden and words_behind(hidden.prompt, hidden.unique_id, "positive")) or None


def _check_texts(spec, texts: Texts, frames: int) -> None:
    for name, value in vars(texts).items():
        if value is not None:
            conditioning.check(value, name, spec)
            conditioning.check_for_tuning(value, name)
            for line in conditioning.notes(value, name, frames):
                logging.warning("EI²: %s", line)
