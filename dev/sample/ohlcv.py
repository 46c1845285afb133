"""Sample candles of 1m and 5m with gaps, weekends, late and corrected candles, and a symbol with an invalid candle."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date


@dataclass(frozen=True)
class Asset:
    """A symbol of the registry and its feed.

    Attributes:
        symbol: Name of the symbol.
        base_timeframe: ``1m`` or ``5m``.
        price: First price.
        hours: First and last hour of trading in UTC, the last one exclusive.
        weekends: Whether it trades on Saturday and Sunday.
        missing: Share of the candles that are missing.
        active: See ``ohlcv.assets``.
        mandatory: See ``ohlcv.assets``.
    """

    symbol: str
    base_timeframe: str
    price: float
    hours: tuple[int, int] = (0, 24)
    weekends: bool = True
    missing: float = 0.005
    active: bool = True
    mandatory: bool = False


POISONED = "GLITCH"
"""Symbol whose feed sends a candle with an invalid price at noon of the last day."""

ASSETS = (
    Asset("BTCUSD", "1m", 64_000, mandatory=True),
    Asset("EURUSD", "1m", 1.17, weekends=False),
    Asset("AAPL", "5m", 230, hours=(14, 21), weekends=False),
    Asset("THINLY", "5m", 4.2, missing=0.35),
    Asset("O'NEIL", "5m", 12, hours=(8, 17), active=False),
    Asset(POISONED, "5m", 100),
)

MINUTES = {"1m": 1, "5m": 5}

LATE_EVERY = 97
"""In this number of candles, one comes late and another one is corrected."""


def assets() -> Iterator[dict[str, Any]]:
    """Generate rows of ``ohlcv.assets``; symbols that are not active are ``test_active``."""
    for asset in ASSETS:
        yield {
            "symbol": asset.symbol,
            "base_timeframe": asset.base_timeframe,
            "active": asset.active,
            "test_active": not asset.active,
            "mandatory": asset.mandatory,
        }


def candles(day: date, *, poisoned: bool = False) -> Iterator[dict[str, Any]]:
    """Generate rows of ``ohlcv.candles`` that arrive in time.

    Args:
        day: The UTC day.
        poisoned: Whether `POISONED` sends its invalid candle at noon.

    Yields:
        Rows by column name; the rows of a symbol are in order.
    """
    for asset in ASSETS:
        for number, row in enumerate(_walk(asset, day)):
            if number % LATE_EVERY != LATE_EVERY - 1:
                broken = poisoned and asset.symbol == POISONED and row["ts"].time() == time(12)
                yield {**row, "close": float("nan")} if broken else row


def late_candles(day: date) -> Iterator[dict[str, Any]]:
    """Generate late rows of ``ohlcv.candles``, and corrections of other rows, which are 10 % higher.

    Args:
        day: The UTC day.

    Yields:
        Rows by column name.
    """
    for asset in ASSETS:
        for number, row in enumerate(_walk(asset, day)):
            if number % LATE_EVERY == LATE_EVERY - 1:
                yield row
            elif number % LATE_EVERY == LATE_EVERY // 2:
                yield {**row, "high": round(row["high"] * 1.1, 5)}


def _walk(asset: Asset, day: date) -> Iterator[dict[str, Any]]:
    if day.weekday() in {5, 6} and not asset.weekends:
        return
    chance = random.Random(f"{asset.symbol} {day}")  # noqa: S311 - a sample, not a secret
    price = asset.price * chance.uniform(0.9, 1.1)
    opens = datetime.combine(day, time(), UTC)
    for minute in range(asset.hours[0] * 60, asset.hours[1] * 60, MINUTES[asset.base_timeframe]):
        close = price * (1 + chance.gauss(0, 0.0005))
        high, low = max(price, close) * (1 + chance.random() / 5000), min(price, close) * (1 - chance.random() / 5000)
        volume, trades = Decimal(chance.randrange(0, 500_000)) / 1000, chance.randrange(0, 400)
        if chance.random() >= asset.missing:
            yield {
                "symbol": asset.symbol,
                "timeframe": asset.base_timeframe,
                "ts": opens + timedelta(minutes=minute),
                "open": round(price, 5),
                "high": round(high, 5),
                "low": round(low, 5),
                "close": round(close, 5),
                "volume": volume,
                "trades": trades,
            }
        price = close
