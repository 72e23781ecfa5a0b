"""Waiting for what happens in another thread or process."""

import time
from collections.abc import Callable


def wait_until(happened: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"nothing happened in {seconds:.0f} s"
        time.sleep(0.02)
