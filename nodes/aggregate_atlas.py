"""'Aggregate Key Frames' and 'Render Atlas': edited key frames to a layer's picture, and that to the clip."""

from ..ei2_modules.atlas.aggregate import METHODS
from ..ei2_modules.atlas.key_frames import checked
from .host.api import ATLAS, CATEGORY, KEY_FRAMES, check_choices, io, schema
from .host.atlas import pictures
from .host.atlas.aggregate_run import aggregate
from .host.images import frames_of


class AggregateAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2AggregateAtlas",
            search="stable video, aggregate, atlas",
            display_name="Aggregate Key Frames",
            category=CATEGORY,
            description="Puts edited key frames together into one picture of their layer, which the whole clip shows.",
            inputs=[
                ATLAS.Input("atlas", tooltip="The one that the key frames were chosen for."),
                KEY_FRAMES.Input("key_frames", tooltip="From Atlas Key Frames."),
                io.Image.Input(
                    "edited",
                    tooltip="The key frames after the edit, in the same order: by Edit Key Frames or any other.",
                ),
                io.Image.Input("images", tooltip="The clip that the atlas was fitted to."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip="matched mean: the key frames' colours are shifted to agree, then averaged. median: for "
                    "outliers. network: StableVideo's, trained for seconds to minutes.",
                ),
            ],
            outputs=[
                ATLAS.Output(display_name="EI2_ATLAS", tooltip="With the edit, for Render Atlas. The other stays."),
                io.Image.Output(display_name="picture", tooltip="The layer's picture with the edit."),
                io.Mask.Output(display_name="edited", tooltip="What of the picture the edit has changed."),
                io.String.Output(display_name="report", tooltip="How much of the layer the key frames show."),
            ],
        )

    @classmethod
    def validate_inputs(cls, method=None):
        return check_choices(cls, method=method)

    @classmethod
    def execute(cls, atlas, key_frames, edited, images, method):
        clip = pictures.clip_for(atlas, images)
        new = frames_of(edited, "edited").cpu()
        return io.NodeOutput(*aggregate(atlas, checked(key_frames, atlas), new, clip, method))


class RenderAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2RenderAtlas",
            search="stable video, render, atlas",
            display_name="Render Atlas",
            category=CATEGORY,
            description="Draws a clip with what was edited in its atlas. Pixels that show nothing of an edit stay the "
            "clip's own.",
            inputs=[
                ATLAS.Input("atlas", tooltip="With edits, of one layer or of several."),
                io.Image.Input("images", tooltip="The clip that the atlas was fitted to."),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The clip with the edits.")],
        )

    @classmethod
    def execute(cls, atlas, images):
        clip = pictures.clip_for(atlas, images)
        return io.NodeOutput(pictures.edited_clip(atlas, clip))
