"""`.ci/run` on machines that are made up of stand-ins for the few programs it starts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(not BASH or os.name == "nt", reason="needs bash")

PYTHON = "python dev.py test"
UPDATE, INSTALL = "apt-get update -qq", "apt-get install -qq -y chromium"
ROOT_WITH_APT = {"id": "echo 0", "apt-get": "exit 0"}
WARNING = "the browser tests will not run"

# programs of the machine beside python, what is started, whether the user is warned
MACHINES = {
    "Chromium is there": ({**ROOT_WITH_APT, "chromium": ""}, [PYTHON], False),
    "Chrome is there": ({**ROOT_WITH_APT, "google-chrome": ""}, [PYTHON], False),
    "one named by CHROMIUM is there": ({**ROOT_WITH_APT, "mine": ""}, [PYTHON], False),
    "none yet": (ROOT_WITH_APT, [UPDATE, INSTALL, PYTHON], False),
    "not root": ({"id": "echo 1000", "apt-get": "exit 0"}, [PYTHON], True),
    "no apt-get": ({"id": "echo 0"}, [PYTHON], True),
    "no network": ({**ROOT_WITH_APT, "apt-get": "exit 100"}, [UPDATE, PYTHON], True),
    "no such package": ({**ROOT_WITH_APT, "apt-get": "[ $1 = update ]"}, [UPDATE, INSTALL, PYTHON], True),
}


def run(tmp_path: Path, programs: dict[str, str], code: int) -> tuple[subprocess.CompletedProcess, list[str]]:
    """.ci/run in a folder of its own; programs: name -> what it does after it wrote down how it was started."""
    for name in ("bin", "clone/.ci"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "clone" / ".ci")
    (tmp_path / "bin" / "dirname").symlink_to(shutil.which("dirname"))
    for name, body in {**programs, "python": f"exit {code}"}.items():
        noted = "" if name == "id" else f'echo "{name} $*" >> "{tmp_path}/started"\n'
        (tmp_path / "bin" / name).write_text(f"#!{BASH}\n{noted}{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    variables = {"PATH": str(tmp_path / "bin"), "CHROMIUM": "mine" if "mine" in programs else ""}
    done = subprocess.run([BASH, tmp_path / "clone/.ci/run"], env=variables, capture_output=True, text=True)
    return done, (tmp_path / "started").read_text().splitlines()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("code", [0, 3])
def test_the_tests_run_whatever_became_of_chromium(tmp_path, machine, code):
    programs, expected, warned = MACHINES[machine]
    done, started = run(tmp_path, programs, code)
    assert (done.returncode, started) == (code, expected)
    assert (WARNING in done.stdout) == warned
