"""What the templates name in a server's folders (random weights, a clip, a mask, a logo), and small settings."""

from PIL import Image, ImageDraw

from ..server.comfy_server import Server, place
from . import clip, video_files

CLIP, MASK, LOGO = "my_clip.mp4", "my_mask.mp4", "my_logo.png"
WEIGHTS = {
    "checkpoints/v1-5-pruned-emaonly-fp16.safetensors": "sd1",
    "checkpoints/sd_xl_base_1.0.safetensors": "sd1",  # SDXL's text encoders are too large for every run of the tests
    "controlnet/control_v11p_sd15_canny_fp16.safetensors": "controlnet",
}
SMALL = {  # widgets of any template for a run of seconds
    "EI2DemoClip": {"frames": 2},
    "EI2LoadClip": {"frames": 2, "long_side": 64},
    "ImageFromBatch": {"length": 2},
    "ImageScale": {"width": 64, "height": 64},
    "EI2OneShotTune": {"steps": 2},
    "EI2InvertVideo": {"steps": 2},
    "EI2FitAtlas": {"preset": "preview"},
    "EI2AtlasKeyFrames": {"frames": ""},
    "EI2EditKeyFrames": {"steps": 2, "resolution": 64},
}


def stage(server: Server, frames: int) -> None:
    for name, kind in WEIGHTS.items():
        path = server.folder / "models" / name
        path.parent.mkdir(exist_ok=True)
        place(clip.random_weights(kind), path)
    video_files.cut(clip.bunny(), server.folder / "input" / CLIP, frames)
    video_files.write(server.folder / "input" / MASK, [moving_disc(i / frames) for i in range(frames)], 8)
    logo().save(server.folder / "input" / LOGO)


def logo(side: int = 128) -> Image.Image:
    """A yellow ring on a transparent ground."""
    image = Image.new("RGBA", (side, side))
    ImageDraw.Draw(image).ellipse((8, 8, side - 8, side - 8), outline="yellow", width=side // 6)
    return image


def moving_disc(part: float, width: int = 640, height: int = 360, radius: int = 120) -> Image.Image:
    """White on black; from left to right as `part` goes from 0 to 1."""
    image = Image.new("RGB", (width, height))
    x, y = width / 4 + part * width / 2, height / 2
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), "white")
    return image
