"""What a tuning has cost so far: seconds and memory."""

import time

import psutil
import torch


class TuningRecord:
    """Begins when it is made."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds, self.peak = 0.0, 0  # at the last step; bytes
        self._began, self._before = time.monotonic(), 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def go_on_from(self, seconds: float) -> None:
        """What the tuning took until it was stopped earlier."""
        self.seconds = self._before = seconds

    def after_step(self) -> None:
        """Of the device's memory where it counts, else of the process's."""
        cuda = self.device.type == "cuda"
        now = torch.cuda.max_memory_allocated(self.device) if cuda else psutil.Process().memory_info().rss
        self.peak = max(self.peak, now)
        self.seconds = self._before + time.monotonic() - self._began

    @property
    def peak_mib(self) -> int:
        return self.peak // 2**20
