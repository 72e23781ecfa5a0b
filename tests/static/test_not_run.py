"""The last line of a run (tests/not_run.py), of small runs of pytest in this process."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = (Path(__file__).parents[1] / "not_run.py").read_text(encoding="utf-8")
PASSES, FAILS = "def test_a(): pass\n", "def test_a(): assert False\n"
SKIPS = "import pytest\n@pytest.mark.parametrize('i', [1, 2])\ndef test_b(i): pytest.skip('no  \\n browser')\n"
MARKED = "import pytest\npytestmark = pytest.mark.skipif(True, reason='no GPU')\n" + PASSES
WHOLE_FILE = "import pytest\npytest.importorskip('no_such_module')\n" + PASSES
XFAIL = "import pytest\n@pytest.mark.xfail\ndef test_d(): assert False\n"

# files, options of pytest, the line
RUNS = {
    "all": ({"host/test_a.py": PASSES}, [], "Everything asked for was run."),
    "a failure": ({"host/test_a.py": FAILS}, [], "Everything asked for was run."),
    "an expected failure": ({"host/test_a.py": XFAIL}, [], "Everything asked for was run."),
    "chosen by name": ({"host/test_a.py": PASSES + SKIPS}, ["-k", "not test_b"], "Everything asked for was run."),
    "skipped inside": ({"host/test_a.py": PASSES + SKIPS}, [], "Not run: 2 tests in tests/host (no browser)"),
    "skipped by a mark": ({"host/deep/test_a.py": MARKED}, [], "Not run: 1 test in tests/host (no GPU)"),
    "quiet": ({"host/test_a.py": MARKED}, ["-q", "-rN"], "Not run: 1 test in tests/host (no GPU)"),
    "a whole file": ({"nodes/test_a.py": WHOLE_FILE}, [], "Not run: 1 file in tests/nodes (could not import *)"),
    "two reasons": (
        {"host/test_a.py": SKIPS, "nodes/test_b.py": MARKED},
        [],
        "Not run: 2 tests in tests/host (no browser); 1 test in tests/nodes (no GPU)",
    ),
    "stopped early": (
        {"host/test_a.py": FAILS, "host/test_b.py": PASSES},
        ["-x"],
        "Not run: 1 test in tests/host (the run had stopped)",
    ),
    "cannot be read": (
        {"host/test_a.py": "import no_such_module", "nodes/test_b.py": PASSES},
        [],
        "Not run: 1 test in tests/nodes (the run had stopped)",
    ),
    "left out": (
        {
            "host/conftest.py": "collect_ignore_glob = ['test_*.py']",
            "host/test_a.py": PASSES,
            "nodes/test_b.py": PASSES,
        },
        [],
        "Not run: 1 file in tests/host (left out of the collection)",
    ),
}


SHARED_OUT = ["all", "a whole file", "two reasons", "stopped early", "left out"]


@pytest.mark.parametrize("run", RUNS)
def test_the_line(pytester, run):
    files, options, line = RUNS[run]
    check(pytester, files, options, line)


@pytest.mark.parametrize("run", SHARED_OUT)
def test_workers_tell_the_line(pytester, run):
    files, options, line = RUNS[run]
    check(pytester, files, [*options, "-n", "1"], line)


def check(pytester, files, options, line):
    for path, text in {"conftest.py": CONFTEST, **files}.items():
        file = pytester.path / "tests" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    lines = pytester.runpytest("--import-mode=importlib", *options, "tests").outlines
    found = [i for i, text in enumerate(lines) if text.startswith(("Not run", "Everything"))]
    assert len(found) == 1
    pytest.LineMatcher([lines[found[0]]]).fnmatch_lines([line])
    assert all(text[0] in "!=" or " in " in text for text in lines[found[0] + 1 :]), "pytest's own counts alone follow"
