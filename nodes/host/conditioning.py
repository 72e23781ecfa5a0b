"""Checks conditioning before work starts, and frees it from the host's inference mode for tuning."""

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.inflate import UNetSpec


def check(conditioning, name: str, spec: UNetSpec) -> None:
    """Raise EI2Error for empty conditioning or text embeddings made for another family of models."""
    if not conditioning:
        raise EI2Error(f"The {name} conditioning is empty. Connect a CLIP Text Encode node (empty text is fine).")
    for embedding, _ in conditioning:
        if embedding.shape[-1] != spec.context_dim:
            raise EI2Error(
                f"The {name} conditioning is {embedding.shape[-1]} wide, but this {spec.family} model takes "
                f"{spec.context_dim}. Encode the text with the CLIP of the same checkpoint."
            )


def refuse_control(conditioning, name: str) -> None:
    """Tuning learns the clip from its caption alone."""
    if any("control" in options for _, options in conditioning):
        raise EI2Error(
            f"The {name} conditioning carries a ControlNet, which One-Shot Tune does not train with. Wire the plain "
            "CLIP Text Encode here, and the ControlNet into DDIM Invert Video and the EI² Sampler."
        )


def out_of_inference_mode(value):
    """A copy whose tensors autograd may save. Call it outside inference mode."""
    if isinstance(value, dict):
        return {k: out_of_inference_mode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(out_of_inference_mode(v) for v in value)
    return value.clone() if hasattr(value, "is_inference") and value.is_inference() else value
