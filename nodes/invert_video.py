"""'DDIM Invert Video': a clip to the noise it could have come from."""

from ..ei2_modules.diffusion.schedule import ddim_schedule
from .host import conditioning, plots
from .host.api import CATEGORY, io, schema, ui
from .host.attempt import attempt
from .host.graph_ahead import look_ahead
from .host.inflating.inflate import inflated_of
from .host.inflating.unet import sigma_table
from .host.progress import show_text
from .host.sampling.record import Inversion, clean_clip, with_inversion
from .host.sampling.round_trip import invert_and_check


class InvertVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2InvertVideo",
            search="invert, ddim inversion, unsample, noise",
            expert="fixed_point_iterations",
            display_name="DDIM Invert Video",
            category=CATEGORY,
            description="Runs the clip backwards into noise on the published DDIM grid, then samples it back once "
            "without guidance to report how well it reconstructs.",
            inputs=[
                io.Model.Input("model", tooltip="The tuned model."),
                io.Latent.Input("latents", tooltip="The clip's frames from VAE Encode, as they were tuned on."),
                io.Conditioning.Input(
                    "positive", tooltip="Empty text, as published, or the clip's caption. Guidance is 1 here."
                ),
                io.Int.Input("steps", default=50, min=1, max=500, tooltip="50 is the paper's. Sampling uses as many."),
                io.Int.Input(
                    "fixed_point_iterations",
                    default=0,
                    min=0,
                    max=50,
                    tooltip="0: the published rule. 3 to 5 reconstruct better and cost as many times more here.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="To report the reconstruction in pixels too."),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="The noise and its schedule, for the EI² Sampler."),
                io.String.Output(display_name="report", tooltip="Reconstruction per frame, as text."),
                io.Image.Output(display_name="plot", tooltip="The same as a picture: verdict, worst frame, curve."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, latents, positive, steps, fixed_point_iterations, vae=None):
        look_ahead(cls.hidden)
        inflated = inflated_of(model, "DDIM Invert Video")
        samples = clean_clip(latents, inflated.spec, "DDIM Invert Video")
        conditioning.check(positive, "positive", inflated.spec)
        schedule = ddim_schedule(sigma_table(model), steps)
        tuned = inflated.weights is not None
        trip = invert_and_check(model, samples, positive, schedule, fixed_point_iterations, vae, tuned)
        record = Inversion(
            steps, schedule.sigma_end, inflated.spec.prediction, inflated.fingerprint, trip.trajectory,
            text=conditioning.checksum(positive),
        )  # fmt: skip
        show_text(trip.summary)
        plot = plots.image(trip.picture)
        notes = conditioning.notes(positive, "positive", len(samples))
        report = "\n".join([trip.report, *(f"note: {line}" for line in notes)])
        inverted = with_inversion(latents, trip.noise, record)
        shown, _ = attempt("The picture in the node is left out", lambda: ui.PreviewImage(plot, cls=cls))
        return io.NodeOutput(inverted, report, plot, ui=shown)
