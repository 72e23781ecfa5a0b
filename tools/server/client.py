"""ComfyUI's HTTP API of a server anywhere: files in, a prompt, files out.

It asks instead of listening: the prompt's id is ours, so an answer that is late or lost changes nothing.
"""

from pathlib import Path

import requests

from .api_prompt import faults

TIMEOUT = 30  # seconds without a byte: a server that computes answers within one or two
GATEWAY = {502, 503, 504}  # a proxy's words for a server that is not there
BLOCK = 1 << 20  # bytes read at once


class Failure(Exception):
    """A server did not do what was asked of it; the text says why."""


class Unreachable(Failure):
    """The server does not answer, or not to the end; the text says how."""


class Gone(Failure):
    """The server answers but does not know the prompt any more: it was started again, or its queue was cleared."""


class Refused(Failure):
    """The server's own no; the text is what it said."""


class Client:
    """Every call may raise Unreachable and Refused."""

    def __init__(self, url: str, timeout: float = TIMEOUT):
        self.url, self.timeout = url, timeout

    def request(self, path: str, data: dict | None = None):
        """GET, or POST with data; the JSON answer, None where there is none."""
        response = self._call("GET" if data is None else "POST", path, json=data)
        return _read(response) if response.content else None

    def object_info(self) -> dict:
        """What the server's nodes take and give, by class."""
        return self.request("/object_info")

    def check(self) -> None:
        """Raises Refused for a server that is not ComfyUI."""
        if "system" not in self.request("/system_stats"):
            raise Refused("it answers, but not as ComfyUI does")

    def upload(self, path: Path, name: str) -> str:
        """Put a file into the server's input folder; the name it got there. The same file again takes no more room."""
        with path.open("rb") as file:
            saved = _read(self._call("POST", "/upload/image", files={"image": (name, file)}))
        return "/".join(filter(None, (saved["subfolder"], saved["name"])))

    def queue(self, prompt: dict, prompt_id: str, **more: str) -> None:
        """`more`: what else the server is told, such as the id of the client that listens."""
        answer = self.request("/prompt", {"prompt": prompt, "prompt_id": prompt_id, **more})
        if answer["node_errors"]:  # the server runs the outputs that are sound, and leaves the others out
            self.cancel(prompt_id)
            raise Refused(faults(answer))

    def result(self, prompt_id: str) -> dict | None:
        """The history's entry of a prompt that ended; None while it waits or runs. Raises Gone."""
        queued = self.request("/queue")  # first: what ends between the two questions is in the history
        if any(item[1] == prompt_id for part in queued.values() for item in part):
            return None
        entry = self.request(f"/history/{prompt_id}").get(prompt_id)
        if entry is None:
            raise Gone("it does not know the job any more: it was started again, or its queue was cleared")
        return entry

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or stop it where it runs; nothing happens when it has ended."""
        self.request("/queue", {"delete": [prompt_id]})
        self.request("/interrupt", {"prompt_id": prompt_id})

    def download(self, saved: dict, path: Path) -> None:
        """A file that an entry's outputs name."""
        where = {name: saved[name] for name in ("filename", "subfolder", "type")}
        try:
            with self._call("GET", "/view", params=where, stream=True) as response, path.open("wb") as file:
                for block in response.iter_content(BLOCK):
                    file.write(block)
        except requests.RequestException as error:
            raise Unreachable(self._reason(error)) from error

    def _call(self, method: str, path: str, **arguments) -> requests.Response:
        try:
            response = requests.request(method, self.url + path, timeout=self.timeout, **arguments)
        except requests.RequestException as error:
            raise Unreachable(self._reason(error)) from error
        if response.status_code in GATEWAY:
            raise Unreachable(f"{response.status_code} {response.reason}")
        if not response.ok:
            raise Refused(_said(response))
        return response

    def _reason(self, error: requests.RequestException) -> str:
        if isinstance(error, requests.Timeout):
            return f"no answer within {self.timeout:g} s"
        if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
            return "the connection is refused or was lost"
        return str(error)


def failure(entry: dict) -> str | None:
    """Why a prompt that ended did not succeed."""
    messages = dict(entry["status"]["messages"])
    if "execution_error" in messages:
        error = messages["execution_error"]
        return f"{error['node_type']}: {error['exception_message'].strip()}"
    return None if entry["status"]["completed"] else "it was interrupted on the server"


def saved_files(entry: dict) -> list[dict]:
    """The files that ended in the server's output folder."""
    kinds = [kind for node in entry["outputs"].values() for kind in node.values() if isinstance(kind, list)]
    return [thing for kind in kinds for thing in kind if isinstance(thing, dict) and thing.get("type") == "output"]


def figures(entry: dict) -> list[dict]:
    """What EI² Video Metrics measured."""
    return [found for node in entry["outputs"].values() for found in node.get("metrics", [])]


def _read(response: requests.Response):
    """Its JSON."""
    try:
        return response.json()
    except requests.JSONDecodeError as error:
        raise Refused("it answers, but not as ComfyUI does") from error


def _said(response: requests.Response) -> str:
    if response.status_code == 413:
        return "the clip is too large for the server: start ComfyUI with --max-upload-size, in MB"
    try:
        return faults(response.json())
    except (requests.JSONDecodeError, KeyError, TypeError, AttributeError):
        return f"{response.status_code} {response.reason} for {response.request.path_url}"
