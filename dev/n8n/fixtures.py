"""pytest fixtures of the stand-in: import ``n8n`` and ``n8n_process`` in a conftest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dev.n8n.client import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.n8n.client import N8nControl

KEY = "k3y-That_must.not.be.seen"


@pytest.fixture(scope="session")
def n8n_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[N8nControl]:
    """A stand-in for the whole session with the key `KEY`, as a separate process."""
    with running(tmp_path_factory.mktemp("n8n") / "log", key=KEY) as control:
        yield control


@pytest.fixture
def n8n(n8n_process: N8nControl) -> Iterator[N8nControl]:
    """The stand-in of the session, without workflows and faults."""
    yield n8n_process
    n8n_process.reset()
