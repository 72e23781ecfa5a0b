"""ComfyUI-EI2: consistent video editing by text with an image diffusion model (EI², NeurIPS 2023)."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI when it loads the pack."""
    from .nodes.extension import EI2Extension

    return EI2Extension()
