"""Work that may fail without stopping a graph: a figure, a preview."""

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management as mm

from ...ei2_modules.errors import EI2Error


def attempt(what: str, function: Callable, *args: Any) -> tuple[Any, str | None]:
    """(what it gives, None), or (None, the reason in words). The user's cancel passes.

    what: "the frame consistency could not be measured", said where the error is not one of ours.
    """
    try:
        return function(*args), None
    except mm.InterruptProcessingException:
        raise
    except EI2Error as error:
        return None, str(error)
    except Exception as error:
        logging.warning("EI²: %s", what, exc_info=True)
        return None, f"{what} ({type(error).__name__}: {error})."
