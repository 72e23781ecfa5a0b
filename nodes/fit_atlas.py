"""'Fit Video Atlas': a clip as layers, each of them one picture."""

from ..ei2_modules.atlas.options import MASKS, MOTIONS, PRESETS, FitOptions
from .host.api import ATLAS, CATEGORY, FLOW, check_choices, io, schema, seed_input
from .host.atlas import fit_states
from .host.atlas.fit_job import FitJob
from .host.atlas.fit_run import FitRun
from .host.atlas.pictures import shown_of


class FitAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2FitAtlas",
            search="stable video, layered neural atlas, nla, unwrap",
            display_name="Fit Video Atlas",
            category=CATEGORY,
            description="Unwraps a clip into one picture of its foreground and one of its background, with maps from "
            "every frame into them: what is painted there once is painted on every frame.",
            inputs=[
                io.Image.Input("images", tooltip="The clip's frames, in order. Every frame, rather than every second."),
                io.Combo.Input(
                    "motion",
                    options=list(MOTIONS),
                    default="rigid",
                    tooltip="What the object may do. affine: move, turn, grow. rigid: perspective and small turns too. "
                    "non-rigid: bend.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="default",
                    tooltip="How long the fit refines its start: preview to look, high for the last decibel.",
                ),
                seed_input(0, "Of the order in which frames are seen. Same seed, same atlas."),
                io.Int.Input(
                    "max_frames",
                    default=70,
                    min=2,
                    max=1000,
                    tooltip="A longer clip is refused: time and memory grow with it, and maps drift.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the object is, one a frame or one for all; a box will do. Without it the clip is "
                    "one layer.",
                ),
                FLOW.Input("flow", optional=True, tooltip="From Optical Flow. Without it, it is computed by auto."),
                io.Combo.Input(
                    "masks",
                    options=list(MASKS),
                    default="auto",
                    optional=True,
                    tooltip="rough: alpha is found inside the masks from motion and colour. tight: alpha follows their "
                    "edges. auto: rough for boxes, and where much inside them moves with the background.",
                ),
                io.Boolean.Input(
                    "lighting",
                    default=False,
                    optional=True,
                    tooltip="On: for light that changes over time. The layers keep the middle frame's light.",
                ),
                io.Mask.Input(
                    "mask_2", optional=True, tooltip="A second object, behind the first one: a layer of its own."
                ),
                io.Combo.Input(
                    "resume",
                    options=list(fit_states.CHOICES),
                    default=fit_states.AUTO,
                    optional=True,
                    tooltip="auto: an earlier fit of the very same clip, masks, flow and options is gone on with, or "
                    f"used as it is when it is finished (the newest {fit_states.KEEP} are kept in "
                    "output/ei2_atlas/states). new run: from the start.",
                ),
            ],
            outputs=[
                ATLAS.Output(display_name="EI2_ATLAS", tooltip="The layers and their maps."),
                io.Image.Output(display_name="reconstruction", tooltip="The clip, drawn from the layers again."),
                io.Image.Output(display_name="foreground", tooltip="The foremost layer's picture."),
                io.Image.Output(display_name="background", tooltip="The background's picture."),
                io.Mask.Output(display_name="alpha", tooltip="Where the foremost layer is seen, in every frame."),
                io.String.Output(display_name="report", tooltip="How far it can be trusted, with what to do."),
            ],
        )

    @classmethod
    def validate_inputs(cls, motion=None, preset=None, masks=None, resume=None):
        return check_choices(cls, motion=motion, preset=preset, masks=masks, resume=resume)

    @classmethod
    def execute(
        cls, images, motion, preset, seed, max_frames, mask=None, flow=None, masks="auto", lighting=False, mask_2=None,
        resume=fit_states.AUTO,
    ):  # fmt: skip
        options = FitOptions(PRESETS[preset], motion, masks, lighting, seed)
        job = FitJob.of(images, {"mask": mask, "mask_2": mask_2}, flow, options, max_frames)
        atlas, report = FitRun(job, resume).execute()
        return io.NodeOutput(atlas, *shown_of(atlas), report)
