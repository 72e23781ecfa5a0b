"""How many frames of the clip a call of the UNet holds."""


def frames_in(transformer_options: dict, batch: int) -> int:
    """Frames of one clip: the batch holds every frame once per cond or uncond that runs in this call."""
    return batch // len(transformer_options.get("cond_or_uncond", [0]))
