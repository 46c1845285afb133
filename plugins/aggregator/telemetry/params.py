"""Params of ``telemetry_daily``, for its task and its HTTP API (spec: telemetry)."""

from __future__ import annotations

from datetime import date
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from aggregator.core.params import Day

MAX_DAYS = 366
"""Largest number of days of one run: a leap year."""


class TelemetryDailyParams(BaseModel):
    """Params of a run.

    Attributes:
        start_date: First UTC day; None for the last day.
        end_date: Last UTC day; None for the first day.
        dry_run: Compute everything and write nothing.
    """

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)

    start_date: Day = None
    end_date: Day = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        first, last = self.days(date.min)
        if first > last:
            raise ValueError(f"startDate {first} is after endDate {last}")
        if (days := (last - first).days + 1) > MAX_DAYS:
            msg = f"startDate {first} to endDate {last} are {days} days, and one run covers {MAX_DAYS} days at most"
            raise ValueError(msg)
        return self

    def days(self, default: date) -> tuple[date, date]:
        """Return the first and the last day to process.

        Args:
            default: The day of the run, used if no day is given.
        """
        return self.start_date or self.end_date or default, self.end_date or self.start_date or default
