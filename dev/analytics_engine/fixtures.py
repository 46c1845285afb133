"""The stand-in as a pytest fixture: ``from dev.analytics_engine.fixtures import analytics_engine`` in a conftest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dev.analytics_engine.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.analytics_engine.client import AnalyticsEngineControl


@pytest.fixture(scope="session")
def analytics_engine_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnalyticsEngineControl]:
    """A stand-in for the whole session, in a process of its own; it takes any token and account."""
    with running(tmp_path_factory.mktemp("analytics_engine")) as control:
        yield control


@pytest.fixture
def analytics_engine(analytics_engine_process: AnalyticsEngineControl) -> Iterator[AnalyticsEngineControl]:
    """The session's stand-in, telling the truth and without a dataset."""
    yield analytics_engine_process
    analytics_engine_process.reset()
