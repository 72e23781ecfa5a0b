"""'Load EI² Demo Model' and 'EI² Demo Clip': something to try the nodes with, on a machine without a checkpoint."""

from ..ei2_modules.demo import clips, scenes, vocabulary
from ..ei2_modules.errors import EI2Error
from .host import demo_controlnet, demo_model
from .host.api import CATEGORY, check_choices, io, schema

DEMO = f"{CATEGORY}/demonstration"


class LoadDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2LoadDemoModel",
            search="demo, example, miniature, checkpoint",
            display_name="Load EI² Demo Model",
            category=DEMO,
            description="A demonstration: a miniature text-to-image model that comes with the pack. It draws coloured "
            f"shapes of {scenes.SIZE}x{scenes.SIZE} pixels and knows {len(vocabulary.WORDS) - 2} words. For real "
            "clips use Load Checkpoint.",
            inputs=[],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="For Inflate UNet to EI², or KSampler."),
                io.Clip.Output(
                    display_name="CLIP", tooltip="For CLIP Text Encode. Knows few words; an error lists them."
                ),
                io.Vae.Output(
                    display_name="VAE", tooltip="For VAE Encode and VAE Decode; 4 pixels a latent, 8 channels."
                ),
                io.ControlNet.Output(
                    display_name="CONTROL_NET", tooltip="For Canny edges, in Edit Key Frames or Apply ControlNet."
                ),
            ],
        )

    @classmethod
    def execute(cls):
        return io.NodeOutput(*demo_model.load(), demo_controlnet.load())


class DemoClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2DemoClip",
            search="demo, example, test video",
            display_name="EI² Demo Clip",
            category=DEMO,
            description="A demonstration: a rendered clip of a moving shape, with its caption and the shape's true "
            "mask. Made for Load EI² Demo Model.",
            inputs=[
                io.Combo.Input("shape", options=list(vocabulary.SHAPES), default="circle", tooltip="What moves."),
                io.Combo.Input("colour", options=list(vocabulary.COLOURS), default="red", tooltip="Its colour."),
                io.Combo.Input(
                    "background",
                    options=list(vocabulary.COLOURS),
                    default="blue",
                    tooltip="The background's colour; not the shape's.",
                ),
                io.Combo.Input("motion", options=list(clips.MOTIONS), default="slide", tooltip="How it moves."),
                io.Int.Input(
                    "frames", default=clips.FRAMES, min=1, max=256, tooltip="How many frames the motion takes."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The frames."),
                io.String.Output(display_name="caption", tooltip="What the clip shows, for CLIP Text Encode."),
                io.Mask.Output(display_name="MASK", tooltip="Where the shape is seen, per frame."),
            ],
        )

    @classmethod
    def validate_inputs(cls, shape=None, colour=None, background=None, motion=None):
        return check_choices(cls, shape=shape, colour=colour, background=background, motion=motion)

    @classmethod
    def execute(cls, shape, colour, background, motion, frames):
        if colour == background:
            raise EI2Error(f"colour and background are both {colour}: nothing would be seen. Choose two colours.")
        scene = scenes.Scene((scenes.Thing(shape, colour),), background, light=(0.15, -0.1))
        clip = clips.moving(scene, motion, frames)
        images, masks = scenes.render(clip)
        return io.NodeOutput(images, clips.clip_caption(clip), masks)
