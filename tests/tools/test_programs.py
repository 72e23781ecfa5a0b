"""How programs are started: from a folder of the user's, whatever lies there, with the host beside them."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from tools import ROOT

spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
dev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)

BENCHMARKS = dev.benchmarks()
OURS = ("tools", "benchmarks", "tests", "ei2_modules", "nodes")


@pytest.fixture
def folder(tmp_path):
    """A user's folder with things of our names, none of which may be imported."""
    for name in OURS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')", encoding="utf-8")
    return tmp_path


def run(folder, *arguments) -> subprocess.CompletedProcess:
    program = [sys.executable, *map(str, arguments)]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)


def test_a_program_runs_in_the_folder_of_its_user(folder):
    """A relative name is the user's, and what it says of itself is what the user typed."""
    small = ["--size", "8", "--frames", "2", "--width", "16", "--heads", "2", "--repeats", "1", "--json", "found.json"]
    done = run(folder, "-c", dev.START, ROOT, "benchmarks.speed.attention", *small)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert found["repeat"] == f"python dev.py bench attention {' '.join(small[:-2])}"
    assert [row["attention"] for row in found["rows"]][:3] == ["FFAM r=1", "FFAM r=2", "FFAM r=4"]


def test_many_clips_needs_no_environment_of_ours(folder):
    done = run(folder, ROOT / "tools" / "many_clips.py", "clips")
    assert (done.returncode, done.stderr) == (2, "Nothing was started. There is no folder clips.\n")
    assert run(folder, ROOT / "tools" / "many_clips.py", "-h").stdout.startswith("usage: python tools/many_clips.py ")


WHERE = """
from tools.server import in_process
in_process.load_pack()
import benchmarks.common, ei2_modules.config, json, nodes, tools.demo
print(json.dumps([module.__file__ for module in (nodes, benchmarks, ei2_modules, tools.demo)]))
"""


def host_with_our_names(folder):
    """A host that has folders with the names of ours, as forks of ComfyUI do."""
    host = folder / "host"
    for name in ("benchmarks", "ei2_modules", "tools"):
        (host / name).mkdir(parents=True)
        (host / name / "__init__.py").write_text("raise SystemExit('the wrong module')", encoding="utf-8")
    for path in sorted(os.scandir(os.environ["COMFYUI_PATH"]), key=lambda entry: entry.name):
        if not (host / path.name).exists():
            (host / path.name).symlink_to(path.path)
    return host


@pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="`python dev.py test` finds or installs a host")
@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_host_and_repository_are_both_found(tmp_path, monkeypatch):
    """`nodes` is the host's; what is ours is ours, also where the host has the same names."""
    host = host_with_our_names(tmp_path)
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    done = run(ROOT, "-c", WHERE)
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stdout.splitlines()[-1])
    assert places[0].startswith(str(host)) and all(place.startswith(str(ROOT)) for place in places[1:]), places


@pytest.fixture
def without_ours(tmp_path, monkeypatch):
    """Nothing of ours is there, and nothing may be made or fetched. Gives what is started, and a ComfyUI."""
    started, host = [], tmp_path / "ComfyUI"
    host.mkdir()
    (host / "main.py").touch()
    (host / "requirements.txt").write_text("einops\nno_such-package>=2\n# note\n", encoding="utf-8")
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(dev, "cache", lambda: tmp_path)
    monkeypatch.setattr(dev.subprocess, "check_call", lambda *args: pytest.fail(f"something is fetched: {args}"))
    monkeypatch.setattr(dev.venv, "create", lambda *args, **kwargs: pytest.fail("an environment is made"))
    monkeypatch.setattr(dev.subprocess, "call", lambda command, **rest: started.append((command, rest["env"])) or 1)
    return started, host


@pytest.mark.parametrize("named", ["by its option", "by its variable"])
def test_a_benchmark_runs_with_what_is_given_alone(without_ours, named, monkeypatch, capsys):
    """And where it fails, what the Python lacks of the lists is said."""
    started, host = without_ours
    where = ["--host", str(host)]
    if named == "by its variable":
        monkeypatch.setenv("COMFYUI_PATH", str(host))
        where = []
    assert dev.bench(["--python", sys.executable, "gpu", *where, "--small", "--steps=2"]) == 1
    ((command, variables),) = started
    assert command == [os.path.abspath(sys.executable), "-c", dev.START, ROOT, "benchmarks.speed.gpu",
                       "--small", "--steps=2"]  # fmt: skip
    assert variables["COMFYUI_PATH"] == str(host)
    assert " lacks no_such-package. " in capsys.readouterr().err


NOT_THERE = {
    "no such Python": (["--python", "no-such-python", "--host", "ComfyUI"], "--python is no-such-python"),
    "no ComfyUI": (["--python", sys.executable], "Say where ComfyUI lies"),
    "not ComfyUI": (["--python", sys.executable, "--host", "."], "has no main.py"),
}


@pytest.mark.parametrize("case", NOT_THERE)
def test_what_is_given_must_be_there(without_ours, case, monkeypatch):
    options, message = NOT_THERE[case]
    started, host = without_ours
    monkeypatch.chdir(host.parent)
    with pytest.raises(SystemExit, match=message):
        dev.bench(["gpu", *options])
    assert not started


def test_every_benchmark_is_listed_with_what_it_measures(capsys):
    assert dev.bench([]) == 0
    listed = dict(re.findall(r"^(\w+) +(\S.*[.?])$", capsys.readouterr().out, re.MULTILINE))
    assert listed.keys() == BENCHMARKS.keys() >= {"attention", "quality", "soak", "tuning_memory"}
    assert dev.bench(["nothing"]) == 2


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_where_the_list_says(name):
    module, _ = BENCHMARKS[name]
    assert importlib.util.find_spec(module) is not None


def test_no_two_benchmarks_have_one_name():
    programs = [p for p in (ROOT / "benchmarks").glob("*/*.py") if "if __name__ ==" in p.read_text(encoding="utf-8")]
    assert len(programs) == len(BENCHMARKS)
