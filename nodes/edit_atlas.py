"""'Replace Atlas Picture' and 'Inspect Video Atlas': paint on a layer and see it move; see what the maps do."""

from ..ei2_modules.errors import EI2Error
from .host.api import ATLAS, CATEGORY, check_choices, io, schema
from .host.atlas import pictures
from .host.images import frames_of, masks_of
from .host.progress import show_text

MOST_SQUARES = 200


class ReplaceAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2ReplaceAtlas",
            search="stable video, paint, logo, atlas",
            display_name="Replace Atlas Picture",
            category=CATEGORY,
            description="Puts an edited picture in the place of a layer's: what is painted there follows the clip. "
            "Pixels that show nothing of the edit stay the clip's own.",
            inputs=[
                ATLAS.Input("atlas", tooltip="From Fit Video Atlas."),
                io.Image.Input("picture", tooltip="The layer's picture, painted on or edited; any size."),
                io.Combo.Input(
                    "layer", options=list(pictures.LAYERS), default="foreground", tooltip="Which layer it is of."
                ),
                io.Image.Input("images", tooltip="The clip that the atlas was fitted to."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="What of the picture is changed. Without it, all that differs."
                ),
            ],
            outputs=[
                ATLAS.Output(display_name="EI2_ATLAS", tooltip="The edited atlas. The one that came in stays."),
                io.Image.Output(display_name="IMAGE", tooltip="The clip with the edit."),
            ],
        )

    @classmethod
    def validate_inputs(cls, layer=None):
        return check_choices(cls, layer=layer)

    @classmethod
    def execute(cls, atlas, picture, layer, images, mask=None):
        frames = pictures.clip_for(atlas, images)
        new = frames_of(picture, "picture").cpu()
        mask = None if mask is None else masks_of(mask, "mask").cpu()
        if len(new) != 1 or (mask is not None and len(mask) != 1):
            raise EI2Error(
                f"A layer is one picture: got {len(new)} pictures and {0 if mask is None else len(mask)} masks. "
                "Give one picture, and one mask at most."
            )
        index = pictures.index_of(atlas, layer)
        edited = pictures.replaced(atlas, index, new[0], None if mask is None else mask[0])
        return io.NodeOutput(edited, pictures.edited_clip(edited, frames))


class InspectAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2InspectAtlas",
            search="stable video, checkerboard, atlas",
            display_name="Inspect Video Atlas",
            category=CATEGORY,
            description="Draws a checkerboard on the layers and moves it with the clip: squares that swim are maps "
            "that slip.",
            inputs=[
                ATLAS.Input("atlas", tooltip="From Fit Video Atlas or Load Video Atlas."),
                io.Int.Input(
                    "squares",
                    default=24,
                    min=2,
                    max=MOST_SQUARES,
                    tooltip="Along the longer side of the clip.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="checkerboard", tooltip="Red on the foreground, blue on the background."),
                io.Mask.Output(display_name="seen foreground", tooltip="Of the foreground's picture: no guess."),
                io.Mask.Output(display_name="seen background", tooltip="Of the background's picture: no guess."),
                io.String.Output(display_name="report", tooltip="Layers, sizes, coverage, stretch."),
            ],
        )

    @classmethod
    def execute(cls, atlas, squares):
        report = pictures.about(atlas)
        show_text(report)
        seen = (atlas.layers[k].observed.float()[None] for k in (0, -1))
        return io.NodeOutput(pictures.checkerboard(atlas, squares), *seen, report)
