"""The list of nodes ComfyUI is given."""

from .aggregate_atlas import AggregateAtlas, RenderAtlas
from .atlas_files import LoadAtlas, SaveAtlas
from .attention_control import AttentionControl, EditGuider
from .attention_maps import AttentionMaps
from .carry_key_frame import CarryKeyFrame
from .compare import Compare
from .demo_model import DemoClip, LoadDemoModel
from .edit_atlas import InspectAtlas, ReplaceAtlas
from .edit_key_frames import EditKeyFrames
from .fit_atlas import FitAtlas
from .host.api import ComfyExtension
from .host.files import weights_folder
from .import_nla import ImportNLA
from .inflate_unet import InflateUNet
from .invert_video import InvertVideo
from .key_frames import AtlasKeyFrames
from .load_clip import LoadClip
from .null_text import NullTextInversion
from .one_shot_tune import OneShotTune
from .optical_flow import OpticalFlow
from .prompt_edit import PromptEdit
from .sampler import EI2DDIMSampler, EI2Sampler
from .several_edits import SeveralEdits
from .tuned_weights import LoadWeights, SaveWeights
from .video_metrics import VideoMetrics

NODES = [
    InflateUNet,
    OneShotTune,
    InvertVideo,
    EI2Sampler,
    EI2DDIMSampler,
    SaveWeights,
    LoadWeights,
    VideoMetrics,
    LoadDemoModel,
    DemoClip,
    PromptEdit,
    AttentionControl,
    EditGuider,
    AttentionMaps,
    NullTextInversion,
    LoadClip,
    Compare,
    OpticalFlow,
    FitAtlas,
    SaveAtlas,
    LoadAtlas,
    InspectAtlas,
    ReplaceAtlas,
    SeveralEdits,
    AtlasKeyFrames,
    EditKeyFrames,
    AggregateAtlas,
    RenderAtlas,
    ImportNLA,
    CarryKeyFrame,
]


class EI2Extension(ComfyExtension):
    async def get_node_list(self):
        weights_folder.register_folders()  # here: ComfyUI 0.3.75 never calls on_load
        return NODES
