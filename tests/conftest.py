"""What all tests share."""

from __future__ import annotations

import os

import hypothesis
import pytest

from asyncnet.transports import readiness

# How fast the machine is, no test asks.
hypothesis.settings.register_profile("asyncnet", deadline=None)
hypothesis.settings.load_profile("asyncnet")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("ASYNCNET_NO_SKIPS"):
        terminalreporter.write_line(f"{len(skipped)} tests were skipped, and here none may be", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("ASYNCNET_NO_SKIPS") and exitstatus == 0 and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(params=["alone", "in a crowd"])
def crowd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether sockets wait as single connections do, or as many at once: see `asyncnet.transports.readiness`."""
    if request.param != "alone":
        always = property(lambda self: True, lambda self, value: None)
        monkeypatch.setattr(readiness.Readiness, "is_crowded", always, raising=False)
