"""'Import Neural Atlas': a checkpoint of Layered Neural Atlases as an atlas of ours."""

from .host.api import ATLAS, CATEGORY, io, schema
from .host.atlas import nla_run
from .host.atlas.pictures import shown_of


class ImportNLA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2ImportNLA",
            search="stable video, layered neural atlas, nla, checkpoint, kasten",
            display_name="Import Neural Atlas",
            category=CATEGORY,
            description="Bakes a checkpoint of Layered Neural Atlases, by its published code, into an atlas for all "
            "nodes here.",
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The clip that it was trained on: as many frames, in the size that its config.json names.",
                ),
                io.Combo.Input(
                    "checkpoint",
                    options=nla_run.list_checkpoints(),
                    tooltip="Folders in models/layered_atlases that hold checkpoint and config.json of a training; "
                    "press R to refresh the list.",
                ),
            ],
            outputs=[
                ATLAS.Output(display_name="EI2_ATLAS", tooltip="The layers and their maps."),
                io.Image.Output(display_name="reconstruction", tooltip="The clip, drawn from the layers again."),
                io.Image.Output(display_name="foreground", tooltip="The foreground's picture."),
                io.Image.Output(display_name="background", tooltip="The background's picture."),
                io.Mask.Output(display_name="alpha", tooltip="Where the foreground is seen, in every frame."),
                io.String.Output(display_name="report", tooltip="How close it is to the networks and to the clip."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint=None):
        return (checkpoint is not None and nla_run.missing(checkpoint)) or True

    @classmethod
    def fingerprint_inputs(cls, checkpoint, images=None):
        return nla_run.stamp(checkpoint)

    @classmethod
    def execute(cls, images, checkpoint):
        atlas, report = nla_run.imported(images, checkpoint)
        return io.NodeOutput(atlas, *shown_of(atlas), report)
