"""Candles, and runs of ``ohlcv_aggregation`` without Airflow."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from aggregator.core.settings import OhlcvSettings
from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.plan import plan, prepare_partitions
from aggregator.ohlcv.run import TIMEFRAMES, Run, finish
from tests.oracles import bars_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

DAY = datetime(2026, 3, 8, tzinfo=UTC)
"""In New York, this day has 23 hours."""

MINUTE = timedelta(minutes=1)
HOUR = 60 * MINUTE
STEPS = {"1m": MINUTE, "5m": 5 * MINUTE}
COLUMNS = "symbol, timeframe, ts, open, high, low, close, volume, trades"
NO_LIMITS = OhlcvSettings(max_tasks_per_run=100_000, max_windows_per_task=100_000, env_name="PROD")

FOREVER = datetime.max.replace(tzinfo=UTC)
"""A run with time until then stops when there is nothing left to build."""

Candle = tuple[Any, ...]


def candle(symbol: str, base: str, ts: datetime, price: float = 10, **other: Any) -> Candle:
    """A candle, valid unless ``other`` makes it invalid."""
    values = {
        "open": price,
        "high": price + 1,
        "low": price - 1,
        "close": price + 0.5,
        "volume": Decimal("1.5"),
        "trades": 2,
    } | other
    return (symbol, base, ts, *values.values())


def candles(symbol: str, base: str, start: datetime, end: datetime, **other: Any) -> list[Candle]:
    """A candle at every step of ``[start, end)``; the price rises by 1 per step."""
    count = (end - start) // STEPS[base]
    return [candle(symbol, base, start + number * STEPS[base], 10 + number, **other) for number in range(count)]


def any_candles(feeds: Sequence[tuple[str, str]], days: int) -> st.SearchStrategy[list[Candle]]:
    """Candles of some feeds starting at `DAY`, in any order, with gaps. Of equal keys, the last one counts."""

    def build(feed: tuple[str, str], slot: int, cents: list[int], volume: int, trades: int | None) -> Candle:
        symbol, base = feed
        low, *between, high = sorted(cents)
        ts = DAY + slot * (timedelta(days=days) // 480 // STEPS[base] * STEPS[base])
        prices = (between[0] / 100, high / 100, low / 100, between[1] / 100)
        return (symbol, base, ts, *prices, Decimal(volume) / 1000, trades)

    row = st.builds(
        build,
        st.sampled_from(feeds),
        st.integers(0, 479),
        st.lists(st.integers(1, 10_000_000), min_size=4, max_size=4),
        st.integers(0, 10**9),
        st.none() | st.integers(0, 9),
    )
    return st.lists(row, max_size=40)


def register(connection: psycopg.Connection, symbols: dict[str, str], **columns: Any) -> None:
    """Insert assets with their base timeframes."""
    names = ["symbol", "base_timeframe", *columns]
    for symbol, base in symbols.items():
        connection.execute(
            f"insert into ohlcv.assets ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})",
            [symbol, base, *columns.values()],
        )


def ingest(connection: psycopg.Connection, rows: Iterable[Candle]) -> None:
    """Upsert candles by one statement, as a feed does. Of equal keys, the last one counts."""
    latest = {row[:3]: row for row in rows}
    if not latest:
        return
    columns = [list(column) for column in zip(*latest.values(), strict=True)]
    connection.execute(
        f"""
        insert into ohlcv.candles ({COLUMNS})
        select * from unnest(
            %s::text[], %s::text[], %s::timestamptz[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
            %s::numeric[], %s::int[]
        )
        on conflict (symbol, timeframe, ts) do update set (open, high, low, close, volume, trades)
            = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.trades)
        """,
        columns,
    )


def run_of(as_of: datetime, run_id: str | None = None, *, repeat_until: datetime | None = None, **settings: Any) -> Run:
    """The run that is due at a time, one minute after the end of its interval; its settings do not limit it."""
    end = as_of - MINUTE
    name = run_id or f"scheduled__{as_of:%Y%m%d%H%M}"
    return Run(name, end - 5 * MINUTE, end, as_of, NO_LIMITS.model_copy(update=settings), repeat_until)


def tick(connection: psycopg.Connection, run: Run) -> dict[str, Any]:
    """Execute one run: plan, aggregate and finish, each in its own transaction."""
    with transaction(connection) as cursor:
        prepare_partitions(cursor, run)
    with transaction(connection) as cursor:
        shards = plan(cursor, run)
    for shard in shards:
        aggregate(partial(transaction, connection), run, **shard)
    with transaction(connection) as cursor:
        done = finish(cursor, run)
    return {**done.totals, "complete": done.is_closed}


def rebuild_all(connection: psycopg.Connection, as_of: datetime) -> dict[str, Any]:
    """Rebuild all windows in one run; return its totals."""
    for timeframe in TIMEFRAMES:
        range_ = [DAY - timedelta(days=2), DAY + timedelta(days=2)]
        connection.execute("select ohlcv.mark_stale(null, %s, %s, %s)", [timeframe, *range_])
    return tick(connection, run_of(as_of))


@contextmanager
def transaction(connection: psycopg.Connection) -> Iterator[psycopg.Cursor]:
    """Open a transaction on an autocommit connection, and yield its cursor."""
    with connection.transaction(), connection.cursor() as cursor:
        yield cursor


def stored(connection: psycopg.Connection) -> dict[tuple[str, str, datetime], Any]:
    """All bars, in the format of the oracle."""
    query = """
        select symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles, quality
        from ohlcv.bars
    """
    return {(symbol, frame, ts.astimezone(UTC)): tuple(row) for symbol, frame, ts, *row in connection.execute(query)}


def expected(connection: psycopg.Connection, as_of: datetime, but: str = "") -> dict[tuple[str, str, datetime], Any]:
    """The bars that the oracle computes from the stored candles, without those of the symbol ``but``."""
    rows = [
        (symbol, base, ts.astimezone(UTC), *values)
        for symbol, base, ts, *values in connection.execute(
            f"""
            select {COLUMNS} from ohlcv.candles
            where symbol <> %s and (
                (symbol, timeframe) in (select symbol, base_timeframe from ohlcv.assets)
                or symbol in (select symbol from ohlcv.former_base_timeframes)
            )
            """,
            [but],
        )
    ]
    in_use = connection.execute(
        """
        select symbol, used.timeframe, greatest(used.starts_at, '1990-01-01+00'), least(used.ends_at, '2100-01-01+00')
        from ohlcv.assets, ohlcv.base_timeframes(symbol, base_timeframe) as used
        """
    ).fetchall()
    return bars_of(rows, as_of - timedelta(seconds=30), in_use)


def versions(connection: psycopg.Connection) -> list[Any]:
    """Row versions of all bars. They change when a bar is rewritten or locked."""
    query = "select symbol, timeframe, ts, xmin, xmax, ctid from ohlcv.bars order by symbol, timeframe, ts"
    return connection.execute(query).fetchall()


def tasks(connection: psycopg.Connection, columns: str, where: str = "true") -> list[Any]:
    """Some columns of the tasks, ordered by symbol and size."""
    return connection.execute(f"select {columns} from ohlcv.tasks where {where} order by symbol, size").fetchall()
