"""One thread a server: it takes a job, has the server do it, keeps the result, and takes the next.

A server that stops answering gives its job back and is asked again for a while, with growing pauses.
"""

import contextlib
import re
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..server.client import Client, Gone, Refused, Unreachable, failure, figures, saved_files
from . import prompts, results
from .job_queue import JobQueue
from .jobs import Job
from .report import Report, duration
from .turned import upright

POLL = 0.5  # seconds between two questions
LONGEST_PAUSE = 15  # seconds, between two questions to a server that does not answer
MOST_SENT = 3  # times: a job that brings servers down must not bring them all down


class Stopped(Exception):
    """The user has had enough."""


@dataclass
class Run:
    """What all workers share."""

    jobs: dict[str, Job]
    cards: dict[str, dict]  # what a result is made of, by the name of the job
    workflow: dict
    out: Path
    queue: JobQueue
    report: Report
    patience: float  # seconds that a server may be silent
    stop: threading.Event


class Worker(threading.Thread):
    def __init__(self, client: Client, run: Run):
        super().__init__(name=client.url, daemon=True)
        self.client, self.url, self.shared = client, client.url, run
        self.queue, self.report = run.queue, run.report
        self.object_info, self.silent_since = {}, None
        self.left_behind = set()  # ids of prompts that may still run there though their job was given back

    def run(self) -> None:
        try:
            while self.queue.left and self._connect():
                self._work()
        except Stopped:
            pass
        finally:
            self.queue.silent(self.url)

    def _connect(self) -> bool:
        """Wait for the server, and read its nodes. False: there is no hope for it."""
        pause, end = 1.0, time.monotonic() + self.shared.patience
        while self.queue.left:
            try:
                return self._fit()
            except Unreachable as error:
                if time.monotonic() >= end:
                    self.report.say(self.url, f"given up after {duration(self.shared.patience)}: {error}.")
                    return False
                self._silent(error)
            except Refused as error:
                self.report.say(self.url, f"not used: {error}.")
                return False
            self._pause(min(pause, max(end - time.monotonic(), 0)))
            pause = min(2 * pause, LONGEST_PAUSE)
        return False

    def _fit(self) -> bool:
        self.object_info = self.client.object_info()
        missing = prompts.missing_nodes(self.shared.workflow, self.object_info)
        if missing:
            self.report.say(self.url, f"not used: it lacks nodes of the workflow, install them: {', '.join(missing)}.")
            return False
        if self.silent_since is not None:
            self.report.say(self.url, f"answers again after {duration(time.monotonic() - self.silent_since)}.")
            self.silent_since = None
        self.queue.answers(self.url)
        return True

    def _silent(self, error: Unreachable) -> None:
        """Others may have its job from now on."""
        self.queue.silent(self.url)
        if self.silent_since is None:
            self.silent_since = time.monotonic()
            again = f"asking again for {duration(self.shared.patience)}"
            self.report.say(self.url, f"does not answer: {error}; {again}. Its job goes back to the queue.")

    def _work(self) -> None:
        """Jobs, as long as there are any and the server answers."""
        try:
            while self.queue.left:
                self._pause(0)
                entry = self.queue.take(self.url)
                if entry:
                    self._do(entry)
                else:
                    self._tidy()
                    self._pause(POLL)
        except Unreachable as error:
            self._silent(error)

    def _tidy(self, wanted: str | None = None) -> None:
        """Stop what was given back and is done elsewhere now; not the prompt that is wanted."""
        for prompt_id in self.left_behind - {wanted}:
            with contextlib.suppress(Refused):
                self.client.cancel(prompt_id)
        self.left_behind.clear()

    def _do(self, entry: dict) -> None:
        """One job, to its end in the queue, whatever happens. Raises Unreachable and Stopped."""
        name, began = entry["data"]["name"], time.monotonic()
        try:
            result = self._result(entry)
            self._keep(name, result, time.monotonic() - began)
        except Stopped:
            self._cancel(entry)
            raise
        except Unreachable:
            if self._has(entry):
                self.left_behind.add(entry["data"]["prompt_id"])
            self.queue.give_back(entry)
            raise
        except Gone as error:
            self.report.say(self.url, f"{name} goes back to the queue: {error}.")
            self.queue.give_back(entry, forget=True)
        except Refused as error:
            self._failed(entry, str(error))
        except Exception as error:  # not the server's doing: another would not help; whatever it is, the rest goes on
            self.report.fail(name, self.url, str(error) if isinstance(error, ValueError) else repr(error))
            self.queue.drop(entry)
        else:
            self.report.done(name, self.url, time.monotonic() - began)
            self.queue.done(entry)

    def _result(self, entry: dict) -> dict:
        """The history's entry, of the prompt that this server already has or of a new one."""
        self._tidy(wanted=entry["data"]["prompt_id"])
        self.report.say(self.url, f"{'goes on with' if self._has(entry) else 'takes'} {entry['data']['name']}.")
        if not self._has(entry):
            self._send(entry)
        while (result := self.client.result(entry["data"]["prompt_id"])) is None:
            self._pause(POLL)
        if failure(result):
            raise Refused(failure(result))
        return result

    def _has(self, entry: dict) -> bool:
        """Whether the entry's prompt was sent to this server."""
        return entry["data"]["server"] == self.url

    def _send(self, entry: dict) -> None:
        if entry["data"]["sent"] >= MOST_SENT:
            raise ValueError(f"it was sent {MOST_SENT} times, and each time the server stopped or lost it")
        name, prompt_id = entry["data"]["name"], str(uuid.uuid4())
        job, digest = self.shared.jobs[name], self.shared.cards[name]["clip"]
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", job.clip.stem)
        with upright(job.clip) as file:
            clip = self.client.upload(file, f"{plain}-{digest[:8]}{file.suffix}")
        prompt = prompts.make(self.shared.workflow, self.object_info, job, clip)
        self.queue.sent(entry, self.url, prompt_id)
        self.client.queue(prompt, prompt_id)

    def _keep(self, name: str, result: dict, seconds: float) -> None:
        files = saved_files(result)
        if not files:
            raise ValueError("the workflow saved no file: it needs Save Video or Save Image")
        told = {"file": self.shared.jobs[name].clip.name, "server": self.url, "seconds": round(seconds, 1)}
        card = {**self.shared.cards[name], **told, "metrics": figures(result)}
        results.keep(self.shared.out, name, card, files, self.client.download)

    def _failed(self, entry: dict, message: str) -> None:
        name = entry["data"]["name"]
        if self.queue.try_elsewhere(entry, self.url):
            self.report.say(self.url, f"{name} failed, and is tried once more on another server: {message}")
        else:
            self.report.fail(name, self.url, message)
            self.queue.drop(entry)

    def _cancel(self, entry: dict) -> None:
        """On the server too, if it answers; if not, the next run finds the prompt again."""
        try:
            self.client.cancel(entry["data"]["prompt_id"])
            self.queue.give_back(entry, forget=True)
        except (Unreachable, Refused):
            self.queue.give_back(entry)

    def _pause(self, seconds: float) -> None:
        if self.shared.stop.wait(seconds):
            raise Stopped
