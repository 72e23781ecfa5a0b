"""One line at the end of a run: which tests did not run, and why, in the words with which they were skipped.

Where pytest-xdist shares the tests out, its workers say what they found, and the line is written where they report to.
"""

from collections import Counter
from pathlib import PurePosixPath

import pytest

EVERYTHING = "Everything asked for was run."
OUTPUT = "not run"  # of a worker


def pytest_configure(config):
    config.pluginmanager.register(NotRun(), "ei2 not run")


class NotRun:
    def __init__(self):
        self.collected: list[str] = []
        self.files: list[tuple[str, str, str]] = []  # (what, where, why)

    @pytest.hookimpl(wrapper=True)
    def pytest_ignore_collect(self, collection_path, config):
        """The layers that need a host leave their files out where there is none."""
        ignored = yield
        if ignored and collection_path.match("test_*.py"):
            path = collection_path.relative_to(config.rootpath).as_posix()
            self.files.append(("file", path, "left out of the collection"))
        return ignored

    def pytest_collectreport(self, report):
        if report.skipped:
            self.files.append(("file", report.nodeid, reason(report)))

    def pytest_collection_finish(self, session):
        self.collected = [item.nodeid for item in session.items]

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[OUTPUT] = vars(self)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """Every worker collects everything: any one's word will do."""
        vars(self).update(getattr(node, "workeroutput", {}).get(OUTPUT, {}))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter, config):
        result = yield
        if not config.option.collectonly:
            terminalreporter.write_line(
                sentence([*skipped(terminalreporter), *self.files, *self.stopped(terminalreporter)])
            )
        return result

    def stopped(self, reporter) -> list[tuple[str, str, str]]:
        """The tests that were collected and say nothing themselves."""
        reported = {getattr(report, "nodeid", None) for reports in reporter.stats.values() for report in reports}
        return [("test", name, "the run had stopped") for name in self.collected if name not in reported]


def skipped(reporter) -> list[tuple[str, str, str]]:
    """(what, where, why) of each test that skipped itself."""
    reports = [report for report in reporter.stats.get("skipped", []) if isinstance(report, pytest.TestReport)]
    return [("test", report.nodeid, reason(report)) for report in reports]


def reason(report) -> str:
    return report.longrepr[2].removeprefix("Skipped: ")


def sentence(gaps: list[tuple[str, str, str]]) -> str:
    """(what, where, why) of every gap -> "Not run: 42 tests in tests/host (no Chromium)"."""
    counts = Counter((what, layer(where), " ".join(why.split())) for what, where, why in gaps)
    parts = [f"{n} {what}{'s' * (n > 1)} in {place} ({why})" for (what, place, why), n in counts.items()]
    return f"Not run: {'; '.join(parts)}" if parts else EVERYTHING


def layer(nodeid: str) -> str:
    """tests/host/test_demo.py::test_x -> tests/host"""
    return "/".join(PurePosixPath(nodeid.split("::")[0]).parts[:-1][:2]) or "."
