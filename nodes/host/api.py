"""The node schema of the host, in one place, so that fields newer than 0.3.75 are tested for only here."""

from comfy_api.latest import ComfyExtension, io, ui

__all__ = ["CATEGORY", "LOSS_MAP", "WEIGHTS", "ComfyExtension", "io", "ui"]

CATEGORY = "EI²"
WEIGHTS = io.Custom("EI2_WEIGHTS")
LOSS_MAP = io.Custom("LOSS_MAP")
