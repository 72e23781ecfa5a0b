"""A ComfyUI server of our own on a free loopback port, with this pack in it, and a client of its HTTP API."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import aiohttp
from api_prompt import faults

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ["EI2_CACHE"])
PACK_FOLDER = "ComfyUI-EI2"
NOT_INSTALLED = shutil.ignore_patterns(".git", "tests", "demo", "__pycache__", ".*_cache")


class Failure(Exception):
    """A prompt that did not run to its end, or a server that did not start; the text says why."""


class Server:
    """`with Server(folder) as server`: started on entry, stopped on exit. Everything it writes is below `folder`."""

    def __init__(self, folder: Path, port: int = 0):
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
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
        return arguments

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def request(self, path: str, data: dict | None = None):
        """GET, or POST with data; the JSON answer."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            text = response.read()
        return json.loads(text) if text else None

    def run(self, prompt: dict, on_event: Callable[[str, dict], None] = lambda kind, data: None) -> dict:
        """Queue an API prompt, wait for its end, return the outputs by node id. Raises Failure."""
        return asyncio.run(self._run(prompt, on_event))

    async def _run(self, prompt, on_event):
        client = uuid.uuid4().hex
        async with aiohttp.ClientSession(self.url) as session, session.ws_connect(f"/ws?clientId={client}") as socket:
            async with session.post("/prompt", json={"prompt": prompt, "client_id": client}) as response:
                answer = await response.json()
            if response.status != 200:
                raise Failure(faults(answer))
            await self._watch(socket, answer["prompt_id"], on_event)
            return await _history(session, answer["prompt_id"])

    async def _watch(self, socket, prompt_id: str, on_event) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue  # previews
            event = message.json()
            kind, data = event["type"], event["data"]
            on_event(kind, data)
            if data.get("prompt_id") != prompt_id:
                continue
            if kind == "execution_success":
                return
            if kind == "execution_error":
                raise Failure(f"{data['node_type']}: {data['exception_message'].strip()}")
            if kind == "execution_interrupted":
                raise Failure("interrupted")
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
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.request("/system_stats")
                return
            time.sleep(0.2)
        raise Failure(f"ComfyUI was not ready after {seconds:.0f} s. The end of its log:\n{self.tail()}")


async def _history(session, prompt_id: str) -> dict:
    """The outputs; the server tells of success a moment before it writes them down."""
    while True:
        async with session.get(f"/history/{prompt_id}") as response:
            entry = (await response.json()).get(prompt_id)
        if entry:
            return entry["outputs"]
        await asyncio.sleep(0.05)


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
