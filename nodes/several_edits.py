"""'Several Edits': many prompts, or many values of one setting, on one tuning and one inversion."""

import math

from .host import comparison, conditioning
from .host.api import CATEGORY, check_choices, io, schema, seed_input
from .host.attempt import attempt
from .host.files import looping_video
from .host.inflating.inflate import inflated_of
from .host.progress import say, show_text
from .host.sampling.inverted import read_inverted
from .host.several_edits.listing import KIND_CHOICES, NOTHING, SWEEP_CHOICES, listed
from .host.several_edits.run import EditRun

STOPPED = "EI2_edits_stopped"


class SeveralEdits(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2SeveralEdits",
            search="batch edit, prompt list, sweep, xy plot, grid, compare",
            expert="seed",
            display_name="Several Edits",
            category=CATEGORY,
            description="Edits one inverted clip under several prompts, and each at several values of a setting if you "
            "like: a labelled grid, and the clips one by one. Stopped early, it keeps those that are done.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the clip was inverted with, tuned or not."),
                io.Latent.Input("latent", tooltip="From DDIM Invert Video."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint (SD1.x, SD2.x, SDXL)."),
                io.Vae.Input("vae", tooltip="Of the same checkpoint."),
                io.Conditioning.Input("negative", tooltip="What no clip shall show; empty text is the paper's."),
                io.String.Input("caption", multiline=True, tooltip="What the clip shows: the caption it is tuned on."),
                io.String.Input(
                    "prompts", multiline=True,
                    tooltip="One edit a line. A kind and a colon before it ('shape: a red star') holds for that line; "
                    "a line after # is left out.",
                ),
                io.Combo.Input(
                    "kind", options=list(KIND_CHOICES), default="appearance",
                    tooltip="What is edited, where a line does not say: see Attention Control.",
                ),
                io.Float.Input(
                    "cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01,
                    tooltip="Guidance: 7.5 is the paper's.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05, round=0.001,
                    tooltip="1: from the noise. Below, part of the way down the inversion: see EI² Sampler.",
                ),
                seed_input(0, "Of fresh noise, for the kind shape."),
                io.Combo.Input(
                    "sweep", options=list(SWEEP_CHOICES), default=NOTHING,
                    tooltip="A setting that takes several values, with every prompt.",
                ),
                io.String.Input("values", default="", tooltip="The values it takes, such as 3, 5, 7.5"),
                io.Float.Input(
                    "fps", default=8.0, min=0.5, max=120.0, step=0.5, round=0.01,
                    tooltip="Frames a second of the video that is kept of a run that stopped.",
                ),
                io.Image.Input("source", optional=True, tooltip="The clip: the first in the grid."),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="All of them with labels, for Create Video."),
                io.Image.Output(
                    display_name="clips", is_output_list=True, tooltip="One by one: what follows is run for each."
                ),
                io.String.Output(display_name="labels", is_output_list=True, tooltip="Of the clips, in their order."),
                io.String.Output(display_name="report", tooltip="What was edited and how long it took, as text."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, kind=None, sweep=None):
        return check_choices(cls, kind=kind, sweep=sweep)

    @classmethod
    def execute(
        cls, model, latent, clip, vae, negative, caption, prompts, kind, cfg, strength, seed, sweep, values, fps,
        source=None,
    ):  # fmt: skip
        edits = listed(prompts, kind, cfg, strength, seed, sweep, values)
        inflated = inflated_of(model, "Several Edits")
        start = read_inverted(model, inflated, latent, 0, False)
        conditioning.check(negative, "negative", inflated.spec)
        run = EditRun(model, inflated, start, clip, vae, negative, caption, edits)
        try:
            run.execute()
        except Exception:
            if run.images:
                _keep(run, source, fps, cls)
            raise
        show_text(report := run.report())
        return io.NodeOutput(_grid(run, source), run.images, [edit.name for edit in edits], report)


def _keep(run: EditRun, source, fps: float, node) -> None:
    """What a stopped run has come to. A fault in it is said, and does not take the place of why the run stopped."""
    kept, why = attempt(
        "The edits that were done could not be kept",
        lambda: looping_video.save_video(_grid(run, source), STOPPED, fps, node),
    )
    say(why or f"{len(run.images)} of {len(run.edits)} edits were done: they are in output/{kept['filename']}.")


def _grid(run: EditRun, source):
    """IMAGE of those that are done, the source first."""
    clips = {"source": source} if source is not None else {}
    clips |= {edit.label: images for edit, images in zip(run.edits, run.images, strict=False)}
    panels = comparison.equal(clips, list(clips))
    return comparison.images(comparison.grid(panels, math.ceil(math.sqrt(len(clips)))))
