"""The watermarks of a task as truth tables: horizon, cursor and built_until."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from aggregator.postgres.functions import call
from tests.market_data import DAY, HOUR

if TYPE_CHECKING:
    import psycopg


def at(hours: float | None) -> datetime | None:
    """The time of the test day at an hour; None stays None."""
    return None if hours is None else DAY + hours * HOUR


@pytest.mark.parametrize(
    ("as_of", "is_from_candles", "finer_built_until", "horizon"),
    [
        pytest.param(None, True, None, None, id="no as-of time builds stale windows only"),
        pytest.param(None, False, 9, None, id="no as-of time, whatever is finer"),
        pytest.param(4, True, None, 3, id="end of the window, before the delay"),
        pytest.param(4.01, True, None, 4, id="end of the window, after the delay"),
        pytest.param(4.9, True, None, 4, id="middle of the next window"),
        pytest.param(4.9, False, 9, 4, id="finer bars are ahead"),
        pytest.param(4.9, False, 3.75, 3, id="finer bars are behind"),
        pytest.param(4.9, False, 4, 4, id="finer bars end with the window"),
        pytest.param(4.9, False, None, "-infinity", id="no finer bars"),
        pytest.param(4.9, True, 1, 4, id="candles have no finer task"),
    ],
)
def test_horizon_is_the_end_of_the_last_window_that_can_be_built(
    market: psycopg.Connection,
    as_of: float | None,
    is_from_candles: bool,
    finer_built_until: float | None,
    horizon: float | str | None,
) -> None:
    market.execute("set timezone = 'UTC'")
    ((result,),) = market.execute(
        "select ohlcv.watermark_horizon('1 hour', %s, '30 seconds', %s, %s)::text",
        [at(as_of), is_from_candles, at(finer_built_until)],
    ).fetchall()
    assert result == (horizon if isinstance(horizon, str) else horizon and f"{at(horizon):%F %T}+00")


@pytest.mark.parametrize(
    ("stored", "next_window", "horizon", "builds", "bad_window", "newest_new_bar", "has_later_source", "cursor"),
    [
        pytest.param(2, 2, 6, (2, 6), 4, 3, True, 4, id="invalid candles in a new window"),
        pytest.param(5, 5, 6, (5, 6), 3, None, True, 5, id="invalid candles in a stale window"),
        pytest.param(None, None, 6, (2, 6), 2, None, True, 2, id="invalid candles in the first window"),
        pytest.param(2, 2, 2, (None, None), None, None, True, 2, id="no window ended"),
        pytest.param(None, None, 6, (None, None), None, None, False, None, id="no source rows yet"),
        pytest.param(None, 9, 6, (None, None), None, None, False, None, id="start in the future"),
        pytest.param(2, 2, 6, (7, 6), None, None, True, 6, id="first source row is after the horizon"),
        pytest.param(None, None, 6, (7, 6), None, None, True, None, id="first source row ever is after the horizon"),
        pytest.param(2, 2, 6, (2, 6), None, 5, False, 6, id="bar in the last window"),
        pytest.param(2, 2, 6, (2, 6), None, 3, True, 6, id="empty windows before later source rows"),
        pytest.param(2, 2, 6, (2, 6), None, 3, False, 4, id="empty windows at the end"),
        pytest.param(2, 2, 6, (2, 6), None, None, False, 2, id="only empty windows"),
        pytest.param(None, 2, 6, (2, 6), None, None, False, 2, id="only empty windows after the start"),
        pytest.param(2, 2, 9, (2, 5), None, 4, False, 5, id="stopped at the limit"),
    ],
)
def test_cursor_is_the_end_of_the_built_windows(
    market: psycopg.Connection,
    stored: float | None,
    next_window: float | None,
    horizon: float | None,
    builds: tuple[float | None, float | None],
    bad_window: float | None,
    newest_new_bar: float | None,
    has_later_source: bool,
    cursor: float | None,
) -> None:
    (builds_from, builds_until) = builds
    assert call(
        market,
        "ohlcv.watermark_cursor",
        p_size=timedelta(hours=1),
        p_stored_cursor=at(stored),
        p_next_window=at(next_window),
        p_horizon=at(horizon),
        p_builds_from=at(builds_from),
        p_builds_until=at(builds_until),
        p_bad_window=at(bad_window),
        p_newest_new_bar=at(newest_new_bar),
        p_has_later_source=has_later_source,
    ) == [(at(cursor),)]


@pytest.mark.parametrize(
    ("cursor", "horizon", "builds_until", "bad_window", "built_until"),
    [
        pytest.param(4, 6, 6, 4, 4, id="invalid candles"),
        pytest.param(4, 6, 6, None, 6, id="horizon reached, the last windows are empty"),
        pytest.param(6, 6, 6, None, 6, id="horizon reached"),
        pytest.param(2, 6, None, None, 6, id="nothing to read"),
        pytest.param(2, None, None, None, None, id="stale windows only"),
        pytest.param(5, 9, 5, None, 5, id="stopped at the limit"),
    ],
)
def test_built_until_is_the_horizon_unless_the_build_stopped_before_it(
    market: psycopg.Connection,
    cursor: float | None,
    horizon: float | None,
    builds_until: float | None,
    bad_window: float | None,
    built_until: float | None,
) -> None:
    assert call(
        market,
        "ohlcv.watermark_built_until",
        p_cursor=at(cursor),
        p_horizon=at(horizon),
        p_builds_until=at(builds_until),
        p_bad_window=at(bad_window),
    ) == [(at(built_until),)]


def test_watermark_functions_are_inlined(market: psycopg.Connection) -> None:
    """A call for each task would take longer than the rest of a tick."""
    plan = market.execute(
        """
        explain verbose select
            ohlcv.watermark_horizon(size, now(), delay, enabled, built_until),
            ohlcv.watermark_cursor(
                size, cursor, cursor, built_until, cursor, built_until, cursor, cursor,
                ohlcv.next_source_row(symbol, source_timeframe, built_until) is not null
            ),
            ohlcv.watermark_built_until(cursor, built_until, cursor, cursor)
        from ohlcv.tasks
        """
    ).fetchall()
    text = " ".join(line for (line,) in plan)
    assert "watermark" not in text
    assert text.count("next_source_row") == 1, "evaluated only where its result counts"
