"""'Atlas Key Frames': the few frames of a clip that are edited by themselves."""

from ..ei2_modules.atlas import key_frames
from ..ei2_modules.atlas.key_frames import KeyFrames
from .host.api import ATLAS, CATEGORY, KEY_FRAMES, check_choices, io, schema
from .host.atlas import pictures
from .host.progress import show_text


class AtlasKeyFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2AtlasKeyFrames",
            search="stable video, key frames, coverage",
            display_name="Atlas Key Frames",
            category=CATEGORY,
            description="Chooses the few frames that together show all of a layer: they are edited, and the rest of "
            "the clip follows.",
            inputs=[
                ATLAS.Input("atlas", tooltip="From Fit Video Atlas or Load Video Atlas."),
                io.Image.Input("images", tooltip="The clip that the atlas was fitted to."),
                io.Combo.Input(
                    "layer", options=list(pictures.LAYERS), default="foreground", tooltip="Which layer is edited."
                ),
                io.Int.Input(
                    "count",
                    default=3,
                    min=1,
                    max=20,
                    tooltip="At most so many; fewer where another would add less than 3 % of the layer.",
                ),
                io.String.Input(
                    "frames",
                    default="",
                    optional=True,
                    tooltip="By hand, from 0 and in the order of the edit, such as 0, 8, 23. Empty: they are found.",
                ),
            ],
            outputs=[
                KEY_FRAMES.Output(display_name="EI2_KEY_FRAMES", tooltip="Which frames, and of which layer."),
                io.Image.Output(display_name="IMAGE", tooltip="Those frames of the clip."),
                io.Mask.Output(display_name="MASK", tooltip="Where the layer is seen in them."),
                io.String.Output(display_name="report", tooltip="What each of them adds."),
            ],
        )

    @classmethod
    def validate_inputs(cls, layer=None):
        return check_choices(cls, layer=layer)

    @classmethod
    def execute(cls, atlas, images, layer, count, frames=""):
        pictures.clip_for(atlas, images)
        index = pictures.index_of(atlas, layer)
        shown = key_frames.shown(atlas, index)
        if frames.strip():
            keys = key_frames.named(frames, atlas, index)
            picks, asked = key_frames.added(shown, keys.frames), len(keys.frames)
        else:
            picks, asked = key_frames.chosen(shown, count), count
            keys = KeyFrames(index, tuple(sorted(t for t, _ in picks)))
        report = key_frames.report(picks, asked)
        show_text(report.partition("\n")[0])
        chosen = list(keys.frames)
        return io.NodeOutput(keys, images[chosen], pictures.seen_of(atlas, chosen, index), report)
