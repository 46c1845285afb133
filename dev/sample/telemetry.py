"""Sample telemetry: events of several types, whose metas conflict and are not always objects."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

EVENTS_A_DAY = 600
"""Approximate number of rows per day."""

EVENTS = ("page_view", "search", "sign_in", "feature_used", "export", "Anmeldung für später", "o'clock")
"""Event types, the most frequent first."""

_USERS = tuple(str(uuid.UUID(int=0x7E1E << 96 | number)) for number in range(60))
_VALUES = (None, Decimal(0), Decimal(1), Decimal(3), Decimal("2.50"), Decimal(120))
_METAS: tuple[Any, ...] = (
    {"plan": "free", "browser": "Firefox"},
    {"plan": "team", "browser": "Firefox", "screen": {"width": 1920, "height": 1080}},
    {"plan": "team", "screen": {"width": 390}, "tags": ["beta", None]},
    {"browser": None, "version": 7},
    {},
    ["not", "an", "object"],
    42,
    None,
)
_LAST_MOMENT = timedelta(hours=23, minutes=59, seconds=59, milliseconds=999)
_SAME_MOMENT = timedelta(hours=12)


def events(day: date) -> Iterator[dict[str, Any]]:
    """Generate rows of ``public.telemetry``.

    Args:
        day: UTC day of the events.

    Yields:
        About `EVENTS_A_DAY` rows by column name, in any order, without ``id``. Some have no user, and some events of
        one type have the same timestamp.
    """
    chance = random.Random(day.toordinal())  # noqa: S311 - a sample, not a secret
    midnight = datetime.combine(day, time(), UTC)
    busy = round(EVENTS_A_DAY * (0.5 if day.weekday() in {5, 6} else 1) * chance.uniform(0.9, 1.1))
    popular = [1 / (place + 1) for place in range(len(EVENTS))]
    offsets = [timedelta(), _LAST_MOMENT, _SAME_MOMENT, _SAME_MOMENT, _SAME_MOMENT]
    chosen = [*[EVENTS[0]] * len(offsets), *EVENTS, *chance.choices(EVENTS, popular, k=busy)]
    offsets += [timedelta(seconds=chance.randrange(86400)) for _ in range(len(chosen) - len(offsets))]
    for offset, event in zip(offsets, chosen, strict=True):
        yield {
            "user_id": chance.choice([None, *_USERS]),
            "event": event,
            "value": chance.choice(_VALUES),
            "meta": chance.choice(_METAS),
            "created_at": midnight + offset,
        }
