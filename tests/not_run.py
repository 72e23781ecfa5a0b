"""One line at the end of a run: which tests did not run, and why, in the words with which they were skipped."""

from collections import Counter
from pathlib import PurePosixPath

import pytest

EVERYTHING = "Everything asked for was run."
NOT_COLLECTED = pytest.StashKey[list[str]]()


def pytest_configure(config):
    config.stash[NOT_COLLECTED] = []


@pytest.hookimpl(wrapper=True)
def pytest_ignore_collect(collection_path, config):
    """The layers that need a host leave their files out where there is none."""
    ignored = yield
    if ignored and collection_path.match("test_*.py"):
        config.stash[NOT_COLLECTED].append(collection_path.relative_to(config.rootpath).as_posix())
    return ignored


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    result = yield
    if not config.option.collectonly:
        terminalreporter.write_line(sentence([*skipped(terminalreporter), *unreached(terminalreporter, config)]))
    return result


def skipped(reporter) -> list[tuple[str, str, str]]:
    """(what, where, why) of each test that skipped itself, and of each file that did so as a whole."""
    reports = reporter.stats.get("skipped", [])
    return [(kind(report), report.nodeid, report.longrepr[2].removeprefix("Skipped: ")) for report in reports]


def kind(report) -> str:
    return "file" if isinstance(report, pytest.CollectReport) else "test"


def unreached(reporter, config) -> list[tuple[str, str, str]]:
    """As `skipped`, of the tests that were collected or left out and say nothing themselves."""
    reported = {getattr(report, "nodeid", None) for reports in reporter.stats.values() for report in reports}
    items = [item.nodeid for item in config.pluginmanager.get_plugin("session").items]
    stopped = [("test", name, "the run stopped before them") for name in items if name not in reported]
    return stopped + [("file", path, "left out of the collection") for path in config.stash[NOT_COLLECTED]]


def sentence(gaps: list[tuple[str, str, str]]) -> str:
    """(what, where, why) of every gap -> "Not run: 42 tests in tests/host (no Chromium)"."""
    counts = Counter((what, layer(where), " ".join(why.split())) for what, where, why in gaps)
    parts = [f"{n} {what}{'s' * (n > 1)} in {place} ({why})" for (what, place, why), n in counts.items()]
    return f"Not run: {'; '.join(parts)}" if parts else EVERYTHING


def layer(nodeid: str) -> str:
    """tests/host/test_demo.py::test_x -> tests/host"""
    return "/".join(PurePosixPath(nodeid.split("::")[0]).parts[:-1][:2]) or "."
