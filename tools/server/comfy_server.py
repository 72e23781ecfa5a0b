"""A ComfyUI server of our own on a free loopback port, with this pack in it."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import aiohttp

from .. import ROOT
from .client import Client, Failure, Unreachable, failure

CACHE = Path(os.environ["EI2_CACHE"])
PACK_FOLDER = "ComfyUI-EI2"
NOT_INSTALLED = shutil.ignore_patterns(".git", "tests", "__pycache__", ".*_cache")
ENDS = ("execution_success", "execution_error", "execution_interrupted")  # events that are a prompt's last


class Server(Client):
    """`with Server(folder) as server`: started on entry, stopped on exit. Everything it writes is below `folder`."""

    def __init__(self, folder: Path, port: int = 0, arguments: tuple[str, ...] = ()):
        """arguments: more of ComfyUI's own."""
        self.port, self.arguments = port or free_port(), arguments
        super().__init__(f"http://127.0.0.1:{self.port}", timeout=120)
        self.folder = folder.resolve()
        self.log = self.folder / "server.log"
        for name in ("custom_nodes", "models/checkpoints", "input", "output", "temp", "user"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        place(ROOT, self.folder / "custom_nodes" / PACK_FOLDER)

    def __enter__(self):
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def command(self) -> list[str]:
        import torch

        host = os.environ["COMFYUI_PATH"]
        arguments = [sys.executable, str(Path(host, "main.py")), "--listen", "127.0.0.1", "--port", str(self.port)]
        arguments += ["--base-directory", str(self.folder), "--disable-auto-launch", "--disable-api-nodes"]
        arguments += ["--database-url", f"sqlite:///{self.folder / 'user' / 'comfyui.db'}"]
        arguments += ["--preview-method", "latent2rgb"]
        if not torch.cuda.is_available():
            arguments += ["--cpu", "--use-pytorch-cross-attention"]
        return [*arguments, *self.arguments]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def run(self, prompt: dict, on_event: Callable[[str, dict], None] = lambda kind, data: None) -> dict:
        """Queue an API prompt, wait for its end, return the outputs by node id. Raises Failure."""
        prompt_id = str(uuid.uuid4())
        asyncio.run(self._listen(prompt, prompt_id, on_event))
        while (entry := self.result(prompt_id)) is None:  # told of its end a moment before it is written down
            time.sleep(0.05)
        if failure(entry):
            raise Failure(failure(entry))
        return entry["outputs"]

    async def _listen(self, prompt: dict, prompt_id: str, on_event) -> None:
        """Queue the prompt, and hand on what the server tells until its end."""
        listener = uuid.uuid4().hex
        async with aiohttp.ClientSession(self.url) as session, session.ws_connect(f"/ws?clientId={listener}") as events:
            self.queue(prompt, prompt_id, client_id=listener)
            async for message in events:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue  # previews
                event = message.json()
                on_event(event["type"], event["data"])
                if event["type"] in ENDS and event["data"].get("prompt_id") == prompt_id:
                    return
        raise Failure(f"The server closed the connection. The end of its log:\n{self.tail()}")

    def output(self, saved: dict) -> Path:
        """Where a file is that the outputs name."""
        return self.folder / "output" / saved["subfolder"] / saved["filename"]

    def tail(self, lines: int = 20) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _wait_until_ready(self, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"ComfyUI stopped while starting. The end of its log:\n{self.tail()}")
            with contextlib.suppress(Unreachable):
                return self.check()
            time.sleep(0.2)
        raise Failure(f"ComfyUI was not ready after {seconds:.0f} s. The end of its log:\n{self.tail()}")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def place(source: Path, target: Path) -> None:
    """Make `target` be `source`: a link, or a copy where links are not allowed."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
    try:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except OSError:
        copy = shutil.copyfile if source.is_file() else lambda s, t: shutil.copytree(s, t, ignore=NOT_INSTALLED)
        copy(source, target)
