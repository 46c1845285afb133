"""The stand-in as a pytest fixture. Import both in a ``conftest.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dev.analytics_engine.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.analytics_engine.client import AnalyticsEngineControl


@pytest.fixture(scope="session")
def analytics_engine_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnalyticsEngineControl]:
    """One stand-in for the session, in a process of its own. It accepts any token and account."""
    with running(tmp_path_factory.mktemp("analytics_engine")) as control:
        yield control


@pytest.fixture
def analytics_engine(analytics_engine_process: AnalyticsEngineControl) -> Iterator[AnalyticsEngineControl]:
    """The session's stand-in, without faults and datasets."""
    yield analytics_engine_process
    analytics_engine_process.reset()
