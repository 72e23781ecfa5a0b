"""'Save EI² Weights' and 'Load EI² Weights'."""

from .host.api import CATEGORY, WEIGHTS, check_choices, io, schema, ui
from .host.files import weights_folder


class SaveWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2SaveWeights",
            search="save weights, tuned weights",
            display_name="Save EI² Weights",
            category=CATEGORY,
            description="Writes tuned weights as one safetensors file (297 MB for SD1.5), and a run card (JSON) beside "
            "it. The stock Load LoRA reads "
            "the query part of the same file.",
            is_output_node=True,
            inputs=[
                WEIGHTS.Input("weights", tooltip="From One-Shot Tune."),
                io.String.Input(
                    "file_name", default="my_clip", tooltip="A plain name; a number is added, nothing is overwritten."
                ),
                io.Combo.Input(
                    "folder",
                    options=list(weights_folder.PLACES),
                    default="output/ei2",
                    tooltip="Below ComfyUI's own folders. Load EI² Weights lists both.",
                ),
            ],
            outputs=[WEIGHTS.Output(display_name="EI2_WEIGHTS", tooltip="The same weights, to wire on.")],
        )

    @classmethod
    def validate_inputs(cls, file_name=None, folder=None):
        return (file_name is not None and weights_folder.name_fault(file_name)) or check_choices(cls, folder=folder)

    @classmethod
    def execute(cls, weights, file_name, folder):
        path = weights_folder.save(weights, file_name, folder)
        return io.NodeOutput(weights, ui=ui.PreviewText(f"Saved {path.name} in {folder}"))


class LoadWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2LoadWeights",
            search="load weights, tuned weights",
            display_name="Load EI² Weights",
            category=CATEGORY,
            description="Reads a tuned-weight file and checks it whole. Wire it to Inflate UNet to EI², or to "
            "One-Shot Tune to go on from there.",
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=weights_folder.list_files(),
                    tooltip="Files in models/ei2 and output/ei2; press R to refresh the list.",
                ),
            ],
            outputs=[WEIGHTS.Output(display_name="EI2_WEIGHTS", tooltip="For Inflate UNet to EI².")],
        )

    @classmethod
    def validate_inputs(cls, file_name=None):
        return (file_name is not None and weights_folder.missing(file_name)) or True

    @classmethod
    def fingerprint_inputs(cls, file_name):
        stat = weights_folder.find(file_name).stat()
        return f"{stat.st_mtime_ns}:{stat.st_size}"

    @classmethod
    def execute(cls, file_name):
        return io.NodeOutput(weights_folder.load(file_name))
