"""'Edit Key Frames': key frames repainted by an image model, each from the one before."""

from ..ei2_modules.atlas.key_frames import checked
from .host.api import ATLAS, CATEGORY, KEY_FRAMES, check_choices, io, schema, seed_input
from .host.atlas import pictures
from .host.atlas.edit_run import PROPAGATED, STARTS, WAYS, EditJob, EditOptions, EditRun
from .host.atlas.structure import Structure


class EditKeyFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2EditKeyFrames",
            search="stable video, key frames, controlnet, consistent",
            display_name="Edit Key Frames",
            category=CATEGORY,
            description="Repaints a layer in the key frames with an image model, as StableVideo does: the first from "
            "noise, each later one from the one before, moved by the atlas.",
            inputs=[
                io.Model.Input("model", tooltip="An image model: SD1.x, SD2.x or SDXL, not tuned, not inflated."),
                io.Conditioning.Input("positive", tooltip="What the layer shall show; add: no background."),
                io.Conditioning.Input("negative", tooltip="What it shall not show."),
                io.Vae.Input("vae", tooltip="Of the same checkpoint."),
                ATLAS.Input("atlas", tooltip="The one that the key frames were chosen for."),
                KEY_FRAMES.Input("key_frames", tooltip="From Atlas Key Frames."),
                io.Image.Input("images", tooltip="The clip that the atlas was fitted to."),
                io.Combo.Input(
                    "way", options=list(WAYS), default=PROPAGATED,
                    tooltip="What ties the key frames together; StableVideo's is the first. jointly by EI²: all at "
                    "once, by an inflated model.",
                ),
                io.Combo.Input(
                    "start", options=list(STARTS), default=STARTS[0],
                    tooltip="noise: the first key frame is new. source: it begins with the clip's own, noised.",
                ),
                seed_input(0, "Of the noise. Same seed, same key frames."),
                io.Int.Input("steps", default=20, min=1, max=500, tooltip="Of DDIM, for a key frame from noise."),
                io.Float.Input(
                    "cfg", default=9.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Guidance; 9 is published."
                ),
                io.Float.Input(
                    "denoise", default=0.8, min=0.01, max=1.0, step=0.01, round=0.001,
                    tooltip="How far a key frame that begins with a picture is noised: less keeps more of it.",
                ),
                io.Int.Input(
                    "resolution", default=512, min=64, max=2048, step=64,
                    tooltip="Shorter side of what is edited, the layer's window: 512 for SD1.x, 1024 for SDXL.",
                ),
                io.ControlNet.Input(
                    "control_net", optional=True, tooltip="For Canny edges of the clip: they keep the layer's shape."
                ),
                io.Float.Input(
                    "control_strength", default=1.0, min=0.0, max=10.0, step=0.01, optional=True,
                    tooltip="Of the ControlNet.",
                ),
                io.Int.Input(
                    "canny_low", default=100, min=3, max=252, optional=True,
                    tooltip="Of 255: weaker edges are left out.",
                ),
                io.Int.Input(
                    "canny_high", default=200, min=3, max=252, optional=True,
                    tooltip="Of 255: stronger edges begin a line.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The edited key frames, in the clip's size."),
                io.String.Output(display_name="report", tooltip="How each of them was made."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, way=None, start=None):
        return check_choices(cls, way=way, start=start)

    @classmethod
    def execute(
        cls, model, positive, negative, vae, atlas, key_frames, images, way, start, seed, steps, cfg, denoise,
        resolution, control_net=None, control_strength=1.0, canny_low=100, canny_high=200,
    ):  # fmt: skip
        clip = pictures.clip_for(atlas, images)
        keys = checked(key_frames, atlas)
        used = control_net is not None and control_strength > 0
        structure = Structure(control_net, control_strength, canny_low, canny_high) if used else None
        options = EditOptions(way, start, seed, steps, cfg, denoise, resolution)
        job = EditJob(model, positive, negative, vae, atlas, keys, clip[list(keys.frames)], options, structure)
        return io.NodeOutput(*EditRun(job).execute())
