"""tools/many where something is wrong: the table, the workflow, the servers, which are pretended here."""

import _thread
import functools
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools.many import command, worker
from tools.many.job_queue import JobQueue
from tools.server.client import Client

WORKFLOW = {
    "1": {"class_type": "LoadVideo", "inputs": {"file": ""}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}},
    "4": {"class_type": "EI2OneShotTune", "inputs": {"positive": ["2", 0], "steps": 1}},
    "5": {"class_type": "EI2Sampler", "inputs": {"positive": ["3", 0]}},
}
NODES = {node["class_type"]: {} for node in WORKFLOW.values()}
SAVED = {"filename": "x_00001_.mp4", "subfolder": "video", "type": "output"}
FAULT = {"node_errors": {"4": {"class_type": "EI2OneShotTune", "errors": [{"message": "Too big", "details": "steps"}]}}}


class Pretended(ThreadingHTTPServer):
    """As much of ComfyUI as is asked for; a job is done at once. `faults`: what is wrong with it."""

    daemon_threads = True

    def __init__(self, *faults: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.prompts, self.cancelled = faults, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, path: str, sent: dict):
        """(status, JSON) or bytes."""
        if "down" in self.faults:
            return 503, {}
        if "hangs" in self.faults and self.prompts:
            time.sleep(1)
        match path.split("?")[0].split("/")[1]:
            case "system_stats":
                return 200, {} if "another program" in self.faults else {"system": {}}
            case "object_info":
                return 200, {} if "no nodes" in self.faults else NODES
            case "upload":
                return (413, {}) if "small uploads" in self.faults else (200, {"subfolder": "", "name": "clip.mp4"})
            case "prompt":
                self.prompts[sent["prompt_id"]] = sent["prompt"]
                return (400, FAULT) if "refuses" in self.faults else (200, {"node_errors": {}})
            case "queue" if sent:
                self.cancelled += sent["delete"]
                return 200, {}
            case "queue":
                return 200, {"queue_running": [[0, key] for key in self.prompts if "slow" in self.faults]}
            case "history":
                return 200, {} if "forgets" in self.faults else {path.split("/")[2]: self.entry()}
            case "view":
                return b"the video"
        return 200, {}

    def entry(self) -> dict:
        outputs = {} if "saves nothing" in self.faults else {"9": {"images": [SAVED], "animated": True}}
        return {"outputs": outputs, "status": {"completed": True, "messages": []}}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = json.loads(body) if "json" in self.headers.get("Content-Type", "") else {}
        answer = self.server.answer(self.path, sent)
        status, found = (200, answer) if isinstance(answer, bytes) else (answer[0], json.dumps(answer[1]).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(command, "Client", functools.partial(Client, timeout=0.4))
    monkeypatch.setattr(worker, "POLL", 0.02)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW), encoding="utf-8")
    return with_table(tmp_path, "clip,caption,prompt\na.mp4,a dog,a cat\nb.mp4,a fox,a wolf\n")


def with_table(folder, text: str):
    (folder / "jobs.csv").write_text(text, encoding="utf-8")
    return folder


def run(folder, *servers, patience="0") -> int:
    addresses = [part for server in servers for part in ("--server", getattr(server, "url", server))]
    guard = threading.Timer(30, _thread.interrupt_main)  # Ctrl+C, where a fault would make it go on for ever
    guard.start()
    try:
        return command.main([str(folder), "--patience", patience, *addresses])
    finally:
        guard.cancel()


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "results").glob("[!.]*"))


def test_every_clip_once(folder):
    servers = Pretended(), Pretended()
    assert run(folder, *servers) == 0
    assert names(folder) == ["a", "b"]
    assert (folder / "results" / "a" / "a.mp4").read_bytes() == b"the video"
    prompts = [prompt for server in servers for prompt in server.prompts.values()]
    assert sorted(prompt["3"]["inputs"]["text"] for prompt in prompts) == ["a cat", "a wolf"]
    assert {prompt["1"]["inputs"]["file"] for prompt in prompts} == {"clip.mp4"}


TABLES = {
    "clip,prompt\n": "lacks the column caption",
    "clip,caption,prompt,sead\n": "a column 'sead'",
    "clip,caption,prompt\n": "no rows",
    "clip,caption,prompt\nc.mp4,a dog,a cat\n": "line 2: there is no file",
    "clip,caption,prompt\na.mp4,a dog,\n": "line 2: prompt is empty",
    "clip,caption,prompt\na.mp4,a dog,a cat, sleeping\n": "line 2: more cells than the heading",
    "clip,caption,prompt\na.mp4,a dog,a cat\na.mp4,a dog,a fox\n": "'a' is the name of several rows",
    "clip,caption,prompt,name\na.mp4,a dog,a cat,../x\n": "'../x' cannot name a result",
    "clip,caption,prompt,name\na.mp4,a dog,a cat,con.a\n": "CON is the name of a device on Windows",
    "clip,caption,prompt,name\na.mp4,a dog,a cat,x.\n": "it ends in a dot or a space",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_refused(table, folder, capsys):
    assert run(with_table(folder, table), Pretended()) == 2
    assert TABLES[table] in capsys.readouterr().err
    assert not names(folder)


@pytest.mark.parametrize(
    "table",
    [
        'clip,caption,prompt\na.mp4,a dog,"a cat, sleeping"\n',
        "\ufeffclip;caption;prompt\r\na.mp4;a dog;a cat, sleeping\r\n;;\r\n",  # a spreadsheet's
        "clip\tprompt\tcaption\tEI2OneShotTune.steps\na.mp4\ta cat, sleeping\ta dog\t7\n",
        'Clip,CAPTION,Prompt,Name\na.mp4,a dog,"a cat, sleeping",a\n',
    ],
)
def test_a_table_that_is_read(table, folder):
    server = Pretended()
    assert run(with_table(folder, table), server) == 0
    (prompt,) = server.prompts.values()
    assert (prompt["2"]["inputs"]["text"], prompt["3"]["inputs"]["text"]) == ("a dog", "a cat, sleeping")
    assert prompt["4"]["inputs"]["steps"] == (7 if "steps" in table else 1)


SERVERS = {
    "another program": (2, "not as ComfyUI does"),
    "no nodes": (1, "lacks nodes of the workflow, install them: CLIPTextEncode, EI2OneShotTune"),
    "small uploads": (1, "--max-upload-size"),
    "refuses": (1, "FAILED on http://127.0.0.1:[^ ]+: EI2OneShotTune: Too big steps"),
    "forgets": (1, "it was sent 3 times"),
    "saves nothing": (1, "it needs Save Video"),
    "hangs": (1, "no answer within 0.4 s"),
}


@pytest.mark.parametrize("fault", SERVERS)
def test_a_server_that_is_no_good(fault, folder, capfd):
    code, message = SERVERS[fault]
    assert run(folder, Pretended(fault)) == code
    said = "".join(capfd.readouterr())
    assert re.search(message, said), said
    assert not names(folder)


@pytest.mark.parametrize("fault", ["no nodes", "small uploads", "refuses", "hangs"])
def test_another_server_does_it(fault, folder):
    assert run(folder, Pretended(fault), Pretended()) == 0
    assert names(folder) == ["a", "b"]


def test_no_server(folder, capsys):
    assert run(folder, "127.0.0.1:9") == 2
    assert "No server answers:\n  http://127.0.0.1:9: the connection is refused" in capsys.readouterr().err


def test_what_a_silent_server_still_runs_is_stopped_when_it_answers_again(folder):
    """Another server has the job in the meantime."""
    server, other = Pretended("slow"), Pretended("down")
    with ThreadPoolExecutor() as pool:
        code = pool.submit(run, folder, server, other, patience="20")
        wait_until(lambda: server.prompts)
        (first,) = server.prompts
        server.faults, other.faults = ("slow", "hangs"), ("slow",)
        wait_until(lambda: other.prompts)
        server.faults = ("slow",)
        wait_until(lambda: len(server.prompts) == 2)
        server.faults = other.faults = ()
        assert code.result() == 0
    assert server.cancelled == [first]
    assert names(folder) == ["a", "b"]


def wait_until(what, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"nothing happened in {seconds:.0f} s"
        time.sleep(0.02)


def test_words_that_changed_are_not_taken_for_done(folder, capsys):
    assert run(folder, Pretended()) == 0
    with_table(folder, "clip,caption,prompt\na.mp4,a dog,a cow\nb.mp4,a fox,a wolf\n")
    assert run(folder, Pretended()) == 2
    assert "made with another prompt: delete that folder" in capsys.readouterr().err
    with_table(folder, "clip,caption,prompt,name\na.mp4,a dog,a cow,cow\nb.mp4,a fox,a wolf,\n")
    server = Pretended()
    assert run(folder, server) == 0
    assert (names(folder), len(server.prompts)) == (["a", "b", "cow"], 1)


WORKFLOWS = {
    "[]": "is not a workflow",
    '{"a": 1}': "is not a workflow",
    '{"nodes": [], "definitions": {"subgraphs": [{}]}}': "has subgraphs",
    "{": "is not a workflow",
    '{"nodes": [{"id": 1, "type": "A", "mode": 4}], "links": []}': "switched off (A)",
}


@pytest.mark.parametrize("text", WORKFLOWS)
def test_a_workflow_that_is_refused(text, folder, capsys):
    (folder / "workflow.json").write_text(text, encoding="utf-8")
    assert run(folder, Pretended()) == 2
    assert WORKFLOWS[text] in capsys.readouterr().err


def test_a_workflow_without_load_video(folder, capsys):
    (folder / "workflow.json").write_text(json.dumps({"2": WORKFLOW["2"]}), encoding="utf-8")
    assert run(folder, Pretended()) == 1
    assert "must have exactly one node LoadVideo" in capsys.readouterr().out


def test_the_queue_hands_out_what_was_not_acknowledged(tmp_path):
    first = JobQueue(tmp_path, {"a": "1", "b": "1", "c": "1"}, {"s"})
    entry = first.take("s")
    first.sent(entry, "s", "its prompt")
    first.done(first.take("s"))
    again = JobQueue(tmp_path, {"a": "1", "c": "2", "d": "1"}, {"s", "t"})  # c has changed, d is new
    taken = [again.take("t"), again.take("t"), again.take("t")]
    assert [entry and entry["data"]["name"] for entry in taken] == ["c", "d", None]  # s, which is up, has a
    again.silent("s")
    assert again.take("t")["data"]["prompt_id"] == "its prompt"
