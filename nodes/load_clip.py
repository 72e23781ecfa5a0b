"""'EI² Load Clip': a few frames of a video file, as a model takes them."""

from ..ei2_modules.video.clip import Wanted
from ..ei2_modules.video.fit import FITS
from .host import video_folder
from .host.api import CATEGORY, check_choices, io, schema


class LoadClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        default = Wanted()
        return schema(
            node_id="EI2LoadClip",
            search="load video, frames, video edit",
            display_name="EI² Load Clip",
            category=CATEGORY,
            description="Loads a few frames of a part of a video, upright and in sizes that fit the VAE, and says what "
            "it did. Only these frames are held in memory, however long the video is.",
            inputs=[
                io.Combo.Input(
                    "file", options=video_folder.list_files(), upload=io.UploadType.video,
                    tooltip="A video in ComfyUI's input folder; the button uploads one.",
                ),
                io.Float.Input(
                    "start", default=default.start, min=0.0, max=1e6, step=0.1, round=0.001,
                    tooltip="Seconds from the video's beginning to the first frame.",
                ),
                io.Float.Input(
                    "duration", default=default.duration, min=0.0, max=1e6, step=0.1, round=0.001,
                    tooltip="Seconds that the frames are spread over; 0: to the end. Plays no part where fps is set.",
                ),
                io.Int.Input(
                    "frames", default=default.frames, min=1, max=4096,
                    tooltip="How many frames to give; 8 is the paper's.",
                ),
                io.Float.Input(
                    "fps", default=default.fps, min=0.0, max=1000.0, step=0.5, round=0.001,
                    tooltip="0: the frames are spread evenly over duration. Above: so many a second are taken from "
                    "start on. Either way they are played as fast as they were filmed.",
                ),
                io.Int.Input(
                    "long_side", default=default.long_side, min=0, max=16384, step=8,
                    tooltip="Of the frames that come out, in pixels: 512 for SD1.x, 768 for SD2.x, 1024 for SDXL. "
                    "0: as the video has it.",
                ),
                io.Combo.Input(
                    "fit", options=list(FITS), default=default.fit,
                    tooltip="Keep aspect cuts off a few pixels to come to multiples of 8; crop takes the middle; pad "
                    "sets the frame on black.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Sides become multiples of what it needs. Without it: of 8."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The frames, for VAE Encode."),
                io.Float.Output(display_name="fps", tooltip="For Create Video: lasts as long as in the video."),
                io.Mask.Output(
                    display_name="MASK",
                    tooltip="As of Load Image: 1 where the frame is transparent, or padded; 0 everywhere else.",
                ),
                io.String.Output(display_name="report", tooltip="What was read and what was done, as text."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, file=None, fit=None):
        fault = video_folder.missing(file) if file is not None else None
        return fault or check_choices(cls, fit=fit)

    @classmethod
    def fingerprint_inputs(cls, file=None, **others):
        return None if file is None else video_folder.fingerprint(file)

    @classmethod
    def execute(cls, file, start, duration, frames, fps, long_side, fit, vae=None):
        wanted = Wanted(start, duration, frames, fps, long_side, fit, video_folder.multiple_of(vae))
        clip = video_folder.load_clip(file, wanted)
        return io.NodeOutput(clip.images, clip.fps, clip.mask, clip.report)
