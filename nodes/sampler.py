"""'EI² Sampler': the edit, in one node; and 'EI² DDIM Sampler', the same steps for SamplerCustomAdvanced."""

from .host import conditioning
from .host.api import CATEGORY, CONTROL, io, schema, seed_input
from .host.inflating.inflate import inflated_of
from .host.progress import Progress
from .host.sampling import run as sampling
from .host.sampling.controlled import controlled_guider
from .host.sampling.inverted import partway, read_inverted


class EI2Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2Sampler",
            search="video edit, video to video, vid2vid, ksampler, sample",
            expert="eta, steps, allow_mismatch",
            display_name="EI² Sampler",
            category=CATEGORY,
            description="Samples the inverted noise back under a new prompt: the edited clip.",
            inputs=[
                io.Model.Input("model", tooltip="The tuned model, the one the clip was inverted with."),
                io.Conditioning.Input("positive", tooltip="What the clip shall show."),
                io.Conditioning.Input("negative", tooltip="What it shall not; empty text is the paper's."),
                io.Latent.Input("latent", tooltip="From DDIM Invert Video."),
                io.Float.Input(
                    "cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01,
                    tooltip="Guidance: 7.5 is the paper's; 1 reconstructs under the inversion's prompt.",
                ),
                seed_input(0, "Of the fresh noise. It plays no part while eta is 0."),
                _eta(),
                _steps(),
                _allow_mismatch(),
                CONTROL.Input(
                    "control", optional=True, tooltip="From Attention Control: the edit follows the clip's attention."
                ),
                _strength(),
            ],
            outputs=[io.Latent.Output(display_name="LATENT", tooltip="The edited clip, for VAE Decode.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, positive, negative, latent, cfg, seed, eta, steps=0, allow_mismatch=False, control=None,
        strength=1.0,
    ):  # fmt: skip
        inflated = inflated_of(model, "EI² Sampler")
        start = read_inverted(model, inflated, latent, steps, allow_mismatch)
        conditioning.check(positive, "positive", inflated.spec)
        conditioning.check(negative, "negative", inflated.spec)
        samples, schedule = partway(model, start, strength)
        callback = Progress(model, schedule.steps).callback()
        guider = control and controlled_guider(model, inflated, control, start, positive, cfg, "EI² Sampler")
        edited = sampling.sample(
            model, samples, positive, negative, cfg, schedule, callback, eta, seed, start.kept, guider
        )
        return io.NodeOutput(start.sampled(edited))


class EI2DDIMSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2DDIMSampler",
            search="ddim, sampler, sigmas",
            expert="eta, steps, allow_mismatch",
            display_name="EI² DDIM Sampler",
            category=CATEGORY,
            description="The EI² Sampler's steps as SAMPLER and SIGMAS for SamplerCustomAdvanced with Disable Noise: "
            "the same latents, with any guider.",
            inputs=[
                io.Model.Input("model", tooltip="The tuned model: its schedule is read."),
                io.Latent.Input("latent", tooltip="From DDIM Invert Video: its number of steps is read."),
                seed_input(0, "Of the fresh noise. It plays no part while eta is 0."),
                _eta(),
                _steps(),
                _allow_mismatch(),
                _strength(),
            ],
            outputs=[
                io.Sampler.Output(display_name="SAMPLER", tooltip="For SamplerCustomAdvanced."),
                io.Sigmas.Output(display_name="SIGMAS", tooltip="The inversion's own grid, downwards."),
                io.Latent.Output(
                    display_name="LATENT",
                    tooltip="For SamplerCustomAdvanced, where strength is below 1: what it begins at.",
                ),
            ],
        )

    @classmethod
    def execute(cls, model, latent, seed, eta, steps=0, allow_mismatch=False, strength=1.0):
        inflated = inflated_of(model, "EI² DDIM Sampler")
        start = read_inverted(model, inflated, latent, steps, allow_mismatch)
        samples, schedule = partway(model, start, strength)
        sampler = sampling.ddim_sampler(eta, seed, start.kept)
        return io.NodeOutput(sampler, schedule.descending, {**latent, "samples": samples})


def _eta():
    return io.Float.Input(
        "eta", default=0.0, min=0.0, max=1.0, step=0.01, round=0.001,
        tooltip="0: DDIM, follows the clip. Above 0 adds fresh noise each step and loosens the tie to the clip.",
    )  # fmt: skip


def _steps():
    return io.Int.Input(
        "steps", default=0, min=0, max=500, optional=True,
        tooltip="0: as many as the inversion took, which is the only number that fits its noise. Set it only for a "
        "latent that came back from Load Latent.",
    )  # fmt: skip


def _allow_mismatch():
    return io.Boolean.Input(
        "allow_mismatch", default=False, optional=True,
        tooltip="Off: a latent inverted with another checkpoint, prediction type or schedule is refused, because the "
        "clip would not come back. On: only a warning in the log.",
    )  # fmt: skip


def _strength():
    return io.Float.Input(
        "strength", default=1.0, min=0.0, max=1.0, step=0.05, round=0.001, optional=True,
        tooltip="1: from the noise. Below, the edit begins part of the way down the inversion and keeps more of the "
        "clip: at 0.6, of 50 steps the last 30.",
    )  # fmt: skip
