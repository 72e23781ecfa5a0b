"""'Null-Text Inversion': an empty text for each step, with which a guided sampling leads back to the clip."""

from ..ei2_modules.diffusion.null_text import NullTextOptions
from .host.api import CATEGORY, NULL_TEXT, check_choices, io, schema
from .host.graph_ahead import look_ahead
from .host.null_text import unfinished
from .host.null_text.job import cfg_fault, make_job
from .host.null_text.report import report, summary
from .host.null_text.run import NullTextRun
from .host.progress import show_text

SHARED, EACH = "shared", "one each"
SOURCE, BOTH = "source only", "source and edit"
ALL, LAST_HALF = "all", "last half"


class NullTextInversion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2NullText",
            search="null text inversion, invert, unsample, reconstruct",
            display_name="Null-Text Inversion",
            category=CATEGORY,
            description="Fits the empty text of every step, so that sampling under guidance leads back to the inverted "
            "clip. Stopped early, it goes on at the next run.",
            inputs=[
                io.Model.Input("model", tooltip="The inflated model that the clip was inverted with."),
                io.Latent.Input("latent", tooltip="From DDIM Invert Video, inverted under the caption."),
                io.Conditioning.Input("positive", tooltip="The clip's own caption."),
                io.Conditioning.Input("negative", tooltip="The text to begin with: empty, as a rule."),
                io.Float.Input(
                    "cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01,
                    tooltip="Of the edit that is to come: the null text fits this cfg alone. Above 1.",
                ),
                io.Int.Input(
                    "inner_steps", default=10, min=1, max=1000,
                    tooltip="At most so many updates at every step. 10 is published, and 1 for vid2vid-zero.",
                ),
                io.Float.Input(
                    "learning_rate", default=1e-2, min=1e-6, max=1.0, step=1e-3, round=1e-7,
                    tooltip="Of Adam at the first step; it falls to half at the last. 0.01 is published.",
                ),
                io.Float.Input(
                    "early_stop", default=1e-5, min=0.0, max=1.0, step=1e-5, round=1e-8,
                    tooltip="A loss below it ends the updates of the first step; it rises to 99 times as much at the "
                    "last of 50. 0.00001 is published, 0 makes all updates.",
                ),
                io.Combo.Input(
                    "frames", options=[SHARED, EACH], default=SHARED,
                    tooltip="shared: one text for all frames, as published. one each: nearer, and less the same "
                    "from frame to frame.",
                ),
                io.Combo.Input(
                    "branch", options=[SOURCE, BOTH], default=SOURCE,
                    tooltip="source only: the edit keeps its own negative (Video-P2P). source and edit: both have "
                    "the null text (vid2vid-zero), which holds the edit nearer to the clip.",
                ),
                io.Combo.Input(
                    "steps", options=[ALL, LAST_HALF], default=ALL,
                    tooltip="Where it is used. last half: the first half of the steps has the plain text, as "
                    "vid2vid-zero has it.",
                ),
            ],
            outputs=[
                NULL_TEXT.Output(display_name="EI2_NULL_TEXT", tooltip="For Attention Control."),
                io.String.Output(display_name="report", tooltip="How well the clip comes back, and every step."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, cfg=None, frames=None, branch=None, steps=None):
        fault = cfg is not None and cfg_fault(cfg)
        return fault or check_choices(cls, frames=frames, branch=branch, steps=steps)

    @classmethod
    def execute(
        cls, model, latent, positive, negative, cfg, inner_steps, learning_rate, early_stop, frames, branch, steps
    ):
        look_ahead(cls.hidden)
        options = NullTextOptions(inner_steps, learning_rate, per_frame=frames == EACH, stop=early_stop)
        choices = {"decoupled": branch == SOURCE, "last_half": steps == LAST_HALF}
        job = make_job(model, latent, positive, negative, cfg, options, **choices)
        key = unfinished.key_of(job)
        run = NullTextRun(job, unfinished.take(key))
        try:
            fitted = run.execute()
        except BaseException:
            unfinished.keep(key, run.done, job.start.schedule.steps)
            raise
        show_text(summary(run))
        return io.NodeOutput(fitted, report(run))
