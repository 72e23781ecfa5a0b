"""What Null-Text Inversion gives: an empty text for each step of the sampling of one inverted clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose

from torch import Tensor

from ....ei2_modules.diffusion.null_text import NullText
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files.fingerprint import Fingerprint, distance


@dataclass(frozen=True, eq=False)
class FittedNullText:
    """Never changed."""

    text: NullText  # at every sigma that a step starts from; the plain text where none is to be used
    decoupled: bool  # for the source alone: the edit keeps its own negative
    fingerprint: Fingerprint  # of the model
    checksums: tuple[bytes, ...]  # of the frames of the inverted noise
    caption: bytes  # checksum of the text it was fitted under

    @property
    def cfg(self) -> float:
        return self.text.cfg

    @property
    def steps(self) -> int:
        return len(self.text.sigmas)

    def conds_at(self, conds: list[dict], sigma: Tensor | float) -> list[dict]:
        """A negative in the host's own form (as process_conds gives it) with the text of the step at this sigma.

        Only the embedding is replaced: what SDXL pools of a text, ControlNets and the like stay.
        """
        return with_embedding(conds, self.text.at(sigma))

    def check(
        self, fingerprint: Fingerprint, steps: int, checksums: Sequence[bytes], cfg: float, caption: bytes
    ) -> None:
        """Raises EI2Error for a sampling that it was not fitted for.

        checksums: of the noise's frames, as the record of the inversion has them. caption: of what the clip shows.
        """
        far, allowed = distance(self.fingerprint.numbers, fingerprint.numbers), fingerprint.allowed(self.fingerprint)
        if not far <= allowed:
            raise EI2Error(
                f"The null text was fitted with another checkpoint (fingerprints differ by {far:.3f}, allowed "
                f"{allowed:.3g}). Wire the same model into Null-Text Inversion and this node."
            )
        if (steps, tuple(checksums)) != (self.steps, self.checksums):
            raise EI2Error(
                f"The null text was fitted for another inversion: {len(self.checksums)} frames in {self.steps} steps, "
                f"and this latent holds {len(checksums)} frames in {steps} steps. Wire the same latent of DDIM Invert "
                "Video into Null-Text Inversion and this node."
            )
        if caption != self.caption:
            raise EI2Error(
                "The null text was fitted under another text than Prompt Edit's caption: the clip would not come back. "
                "Wire Prompt Edit's caption into positive of Null-Text Inversion."
            )
        if not isclose(cfg, self.cfg, rel_tol=1e-6):  # a wired number may be rounded
            raise EI2Error(
                f"The null text was fitted for cfg {self.cfg:g}, and cfg is {cfg:g} here: the clip would not come "
                f"back. Set cfg to {self.cfg:g}, or to {cfg:g} in Null-Text Inversion too."
            )


def with_embedding(conds: list[dict], embedding: Tensor) -> list[dict]:
    """The same conditioning in the host's own form under another text embedding, (1 or n, tokens, d)."""
    found = []
    for cond in conds:
        text = cond["model_conds"]["c_crossattn"]
        other = text._copy_with(embedding.to(text.cond.device))
        found.append({**cond, "model_conds": {**cond["model_conds"], "c_crossattn": other}})
    return found
