"""What the user sees: a line for every job that ends and for every server that comes or goes, and a summary."""

import textwrap
import threading
import time
from collections import Counter


class Report:
    def __init__(self, total: int):
        """`total`: of jobs to do in this run."""
        self.total, self.began = total, time.monotonic()
        self.by, self.failed = Counter(), {}  # jobs done by server; messages by name of the job
        self._lock = threading.Lock()

    def say(self, server: str, text: str) -> None:
        print(f"{server}: {text}", flush=True)

    def done(self, name: str, server: str, seconds: float) -> None:
        with self._lock:
            self.by[server] += 1
            self._line(f"{name}: {duration(seconds)} on {server}{self._rest()}")

    def fail(self, name: str, server: str, message: str) -> None:
        with self._lock:
            self.failed[name] = message
            self._line(f"{name}: FAILED on {server}: {message}")

    def summary(self) -> str:
        """What was done where, what failed and why, and what is left."""
        servers = ", ".join(f"{count} by {server}" for server, count in self.by.items())
        took = duration(time.monotonic() - self.began)
        lines = [f"{self.by.total()} done in {took}" + (f" ({servers})." if servers else ".")]
        lines += [textwrap.shorten(f"Failed: {name}: {message}", 120) for name, message in self.failed.items()]
        if self.failed:
            lines.append("The same command tries these again, once their cause is gone.")
        if self.left:
            lines.append(f"{self.left} left. With servers that answer, the same command goes on with them.")
        return "\n".join(lines)

    @property
    def left(self) -> int:
        return self.total - self._ended()

    def _ended(self) -> int:
        return self.by.total() + len(self.failed)

    def _rest(self) -> str:
        """The time left, at the mean pace so far."""
        if not self.left:
            return ""
        pace = (time.monotonic() - self.began) / self._ended()
        return f"; about {duration(pace * self.left)} left"

    def _line(self, text: str) -> None:
        print(f"[{self._ended()}/{self.total}] {text}", flush=True)


def duration(seconds: float) -> str:
    """In words: 8 s, 3 min 20 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
