"""'Optical Flow': how the pixels of a clip move, both ways between neighbours."""

from ..ei2_modules.motion.flow import colours
from .host import optical_flow
from .host.api import CATEGORY, FLOW, check_choices, io, schema
from .host.images import frames_of, image_of
from .host.progress import Progress, show_text, to_pil


class OpticalFlow(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2OpticalFlow",
            search="optical flow, raft, farneback, motion",
            display_name="Optical Flow",
            category=CATEGORY,
            description="Where every pixel of a frame goes in the next one, and back, and where both agree: what Fit "
            "Video Atlas follows.",
            inputs=[
                io.Image.Input("images", tooltip="The clip's frames, in order; two at least."),
                io.Combo.Input(
                    "method",
                    options=list(optical_flow.METHODS),
                    default=optical_flow.AUTO,
                    tooltip="auto: RAFT where its weights lie in models/optical_flow and the frames have 128 px, else "
                    "Lucas-Kanade, which needs nothing. Farneback needs OpenCV.",
                ),
                io.Boolean.Input(
                    "changing_light",
                    default=False,
                    tooltip="On: pixels are compared by the brightness around them, so that light that changes is not "
                    "taken for motion. A little less exact where it does not change.",
                ),
            ],
            outputs=[
                FLOW.Output(
                    display_name="EI2_FLOW", tooltip="For Fit Video Atlas, Carry Key Frame, EI² Video Metrics."
                ),
                io.Image.Output(
                    display_name="picture",
                    tooltip="From each frame to the next: hue is the direction, strength the length; white stands.",
                ),
                io.Mask.Output(display_name="agrees", tooltip="White where there and back ends where it began."),
                io.String.Output(display_name="report", tooltip="The method, the motion, and how much agrees."),
            ],
        )

    @classmethod
    def validate_inputs(cls, method=None):
        return check_choices(cls, method=method)

    @classmethod
    def execute(cls, images, method, changing_light):
        frames = frames_of(images, "images")
        progress = Progress(None, max(1, len(frames) - 1))

        def on_pair(done, there):
            progress.advance_to(done, image=to_pil(image_of(colours(there[-1:]))[0]))

        flow = optical_flow.estimated(frames, method, changing_light, on_pair)
        report = flow.report()
        show_text(report)
        return io.NodeOutput(flow, image_of(colours(flow.forward)), flow.forward_agrees[:, 0].float(), report)
