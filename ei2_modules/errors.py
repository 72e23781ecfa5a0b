"""The errors a user may see. Every message carries the numbers that clashed and the fix."""

from collections.abc import Iterable


class EI2Error(ValueError):
    """Something the user wired or typed cannot work; the text says what and how to mend it."""

    # ComfyUI shows the type of an error with its module, which for a pack is the folder that it lies in; of errors of
    # Python itself it shows the name alone.
    __module__ = "builtins"

    def __init_subclass__(cls):
        cls.__module__ = EI2Error.__module__


def require(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raises EI2Error for what is not among the choices."""
    if value not in allowed:
        raise EI2Error(f"{name} is {value!r}: it must be one of {', '.join(allowed)}.")


class WeightsError(EI2Error):
    """A tuned-weight file is damaged, foreign, or made for another model."""


class DivergedError(EI2Error):
    """Tuning met a loss or gradient that is not a number."""

    def __init__(self, step: int, what: str):
        left = f"The weights of step {step - 1} are kept." if step > 1 else "Nothing was learnt yet."
        super().__init__(
            f"Tuning stopped at step {step}: the {what} is not finite. {left} "
            "Try a lower learning rate, or precision bf16 or fp32 instead of fp16."
        )
        self.step = step


class UnmovedError(EI2Error):
    """Tuning changed nothing of what it should train."""

    def __init__(self, step: int, what: str):
        super().__init__(
            f"After step {step} not one of {what} has moved: the losses are real, but nothing of what is learnt would "
            "be saved. Either the model's weights are of a kind that cannot be trained from (load the checkpoint with "
            "ComfyUI's own loader in fp16, bf16 or fp32), or another node replaces what should be trained (put it "
            "behind One-Shot Tune)."
        )


class NotFiniteError(EI2Error):
    """A model gave values that are not numbers (NaN) or infinite."""

    def __init__(self, where: str, frame: int, frames: int, advice: str = ""):
        super().__init__(
            f"The model's result is not finite at {where}, first in frame {frame} of {frames}. {advice}".rstrip()
        )
        self.facts = where, frame, frames

    def with_advice(self, advice: str) -> "NotFiniteError":
        """The same with what to do about it."""
        return NotFiniteError(*self.facts, advice)
