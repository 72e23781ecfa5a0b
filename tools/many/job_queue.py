"""Which job waits, which runs where, which failed: the queue is persist-queue's SQLiteAckQueue, on disk.

A job that is taken and not acknowledged, because anything at all was killed, is handed out again. Each entry also knows
the server it was sent to and the prompt's id there, so that a prompt that still runs is waited for and not sent again.
"""

import threading
from pathlib import Path

from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json
from persistqueue.sqlackqueue import AckStatus

TAKEN = int(AckStatus.unack)  # a smaller status: the job waits
MOST_FAILURES = 2  # on different servers


class JobQueue:
    """For the threads of one process."""

    def __init__(self, folder: Path, keys: dict[str, str], up: set[str]):
        """`keys`: name of every job to do -> what tells that it has changed. `up`: the servers that answer."""
        self._queue = SQLiteAckQueue(str(folder), multithreading=True, serializer=json)
        self._lock = threading.Lock()
        self._up = set(up)
        self._fill(keys)
        self.left = len(keys)

    def answers(self, server: str) -> None:
        with self._lock:
            self._up.add(server)

    def silent(self, server: str) -> None:
        """What it was sent may run on other servers now."""
        with self._lock:
            self._up.discard(server)

    def take(self, server: str) -> dict | None:
        """A job for this server, one that it already has before others; None when nothing waits for it now."""
        with self._lock:
            waiting = [row for row in self._queue.queue() if row["status"] < TAKEN and self._fits(row["data"], server)]
            if not waiting:
                return None
            first = min(waiting, key=lambda row: (row["data"]["server"] != server, row["id"]))
            return self._queue.get(id=first["id"], raw=True)

    def sent(self, entry: dict, server: str, prompt_id: str) -> None:
        """Written down before it is sent: better to ask in vain for a prompt than to send it twice."""
        entry["data"].update(server=server, prompt_id=prompt_id, sent=entry["data"]["sent"] + 1)
        with self._lock:
            self._queue.update(entry)

    def give_back(self, entry: dict, forget: bool = False) -> None:
        """It waits again; with `forget` there is no prompt of it on any server."""
        if forget:
            entry["data"].update(server=None, prompt_id=None)
        with self._lock:
            self._queue.update(entry)
            self._queue.nack(id=entry["pqid"])

    def done(self, entry: dict) -> None:
        with self._lock:
            self._queue.ack(id=entry["pqid"])
            self.left -= 1

    def try_elsewhere(self, entry: dict, server: str) -> bool:
        """Give back a job that failed here, for another server that may be able to do it. False: there is none."""
        on = entry["data"]["failed_on"]
        on.append(server)
        with self._lock:
            others = self._up - set(on)
        if len(on) >= MOST_FAILURES or not others:
            return False
        self.give_back(entry, forget=True)
        return True

    def drop(self, entry: dict) -> None:
        """It failed for good."""
        with self._lock:
            self._queue.ack_failed(id=entry["pqid"])
            self.left -= 1

    def _fits(self, job: dict, server: str) -> bool:
        """Not one that another server runs, nor one that failed here while another server is up."""
        runs_elsewhere = job["server"] != server and job["server"] in self._up
        failed_here = server in job["failed_on"] and self._up - set(job["failed_on"])
        return not runs_elsewhere and not failed_here

    def _fill(self, keys: dict[str, str]) -> None:
        """What an earlier run left goes on, if it is still wanted as it was; the rest is new."""
        known = set()
        for row in self._queue.queue():
            job = row["data"]
            if row["status"] >= TAKEN:
                continue
            if keys.get(job["name"]) == job["key"]:
                known.add(job["name"])
                self._queue.update({**job, "sent": 0, "failed_on": []}, id=row["id"])
            else:
                self._queue.get(id=row["id"])
                self._queue.ack(id=row["id"])
        fresh = {"server": None, "prompt_id": None, "sent": 0, "failed_on": []}
        for name, key in keys.items():
            if name not in known:
                self._queue.put({"name": name, "key": key, **fresh})
