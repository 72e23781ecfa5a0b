"""'Save Video Atlas' and 'Load Video Atlas'."""

from .host.api import ATLAS, CATEGORY, io, schema, ui
from .host.atlas import folder
from .host.atlas.pictures import clip_for


class SaveAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2SaveAtlas",
            search="stable video, save atlas",
            display_name="Save Video Atlas",
            category=CATEGORY,
            description="Writes an atlas as one safetensors file in output/ei2_atlas: pictures, alpha, and the "
            "parameters of the maps.",
            is_output_node=True,
            inputs=[
                ATLAS.Input("atlas", tooltip="From Fit Video Atlas, or edited."),
                io.String.Input(
                    "file_name", default="my_clip", tooltip="A plain name; a number is added, nothing is overwritten."
                ),
            ],
            outputs=[ATLAS.Output(display_name="EI2_ATLAS", tooltip="The same atlas, to wire on.")],
        )

    @classmethod
    def validate_inputs(cls, file_name=None):
        return (file_name is not None and folder.name_fault(file_name)) or True

    @classmethod
    def execute(cls, atlas, file_name):
        path = folder.save(atlas, file_name)
        return io.NodeOutput(atlas, ui=ui.PreviewText(f"Saved {path.name} in output/{folder.FOLDER}"))


class LoadAtlas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="EI2LoadAtlas",
            search="stable video, load atlas",
            display_name="Load Video Atlas",
            category=CATEGORY,
            description="Reads an atlas and checks it whole.",
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=folder.list_files(),
                    tooltip="Files in output/ei2_atlas; press R to refresh the list.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="The clip: an atlas that was fitted to another one is refused."
                ),
            ],
            outputs=[ATLAS.Output(display_name="EI2_ATLAS", tooltip="As it was saved.")],
        )

    @classmethod
    def validate_inputs(cls, file_name=None):
        return (file_name is not None and folder.missing(file_name)) or True

    @classmethod
    def fingerprint_inputs(cls, file_name, images=None):
        stat = folder.find(file_name).stat()
        return f"{stat.st_mtime_ns}:{stat.st_size}"

    @classmethod
    def execute(cls, file_name, images=None):
        atlas = folder.load(file_name)
        if images is not None:
            clip_for(atlas, images)
        return io.NodeOutput(atlas)
