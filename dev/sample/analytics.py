"""Sample inputs of the analytics DAGs, deterministic by day (spec: analytics suite).

Four organizations of different sizes send campaigns, some to disposable and invalid addresses. They have page visitors,
score their leads, and pay for enrichment jobs, some of which fail.
"""

from __future__ import annotations

import json
import random
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

DISPOSABLE_DOMAINS = ("mailinator.com", "guerrillamail.com", "10minutemail.com")
"""Domains whose mails always bounce."""

_CONTACTS = {"acme": 120, "globex": 60, "initech": 25, "solo": 1}
_DOMAINS = ("example.com", "example.org", "example.net", *DISPOSABLE_DOMAINS)
_DOMAIN_WEIGHTS = (50, 25, 15, 4, 3, 3)
_PAGES = ("website", "pricing-page", "webinar-signup", None)
_MAILS_A_CONTACT = 0.6
_VISITS_A_CONTACT = 0.5
_JOBS_A_CONTACT = 0.2


def organizations() -> dict[str, str]:
    """Return the name and the ID of each organization."""
    return {name: str(uuid5(NAMESPACE_URL, f"https://example.com/{name}")) for name in _CONTACTS}


def contact_activity(day: date) -> Iterator[dict[str, Any]]:
    """Generate rows of ``analytics.contact_activity``.

    Args:
        day: UTC day of the rows.

    Yields:
        About 300 rows by column name, in any order.
    """
    chance = random.Random(f"activity {day}")  # noqa: S311 - a sample, not a secret
    for name, organization in organizations().items():
        campaigns = [_id(f"{name}/campaign/{number}") for number in range(3)]
        for contact in _some(chance, name, _MAILS_A_CONTACT):
            domain = _domain(contact)
            source, sent = chance.choice(campaigns), _moment(chance, day)
            for event_type in _fate(chance, domain):
                yield {
                    "organization_id": organization,
                    "contact_id": contact,
                    "event_type": event_type,
                    "event_source": source,
                    "event_data": json.dumps({"domain": domain}),
                    "created_at": sent,
                }
        for visitor in [None, *_some(chance, name, _VISITS_A_CONTACT)]:
            yield {
                "organization_id": organization,
                "contact_id": visitor,
                "event_type": chance.choice(["page_view", "form_submitted"]),
                "event_source": chance.choice(_PAGES),
                "event_data": None,
                "created_at": _moment(chance, day),
            }


def lead_scores() -> Iterator[dict[str, Any]]:
    """Generate rows of ``scoring.lead_scores``: one per contact, from 0 to 100."""
    chance = random.Random("scores")  # noqa: S311
    for name, organization in organizations().items():
        for contact in _contacts(name):
            score = min(100, round(chance.betavariate(2, 4) * 110))
            yield {"organization_id": organization, "contact_id": contact, "total_score": score}


def enrichment_jobs(day: date) -> Iterator[dict[str, Any]]:
    """Generate rows of ``lead_intelligence.enrichment_jobs``.

    Args:
        day: UTC day on which the jobs were created.

    Yields:
        About 40 rows by column name: completed, failed (some of them paid for) and pending ones.
    """
    chance = random.Random(f"jobs {day}")  # noqa: S311
    for name, organization in organizations().items():
        for contact in _some(chance, name, _JOBS_A_CONTACT):
            created = _moment(chance, day)
            status = chance.choices(["completed", "failed", "pending"], [80, 15, 5])[0]
            paid = status == "completed" or (status == "failed" and chance.choice([True, False]))
            yield {
                "id": _id(f"{contact}/job/{created}"),
                "organization_id": organization,
                "status": status,
                "total_cost": Decimal(chance.randrange(50, 2500)).scaleb(-4) if paid else None,
                "created_at": created,
                "completed_at": created + timedelta(seconds=chance.randrange(2, 900))
                if status == "completed"
                else None,
            }


def _fate(chance: random.Random, domain: str) -> Iterator[str]:
    """Return the events after a mail, with realistic probabilities."""
    yield "email_sent"
    if domain in DISPOSABLE_DOMAINS or chance.random() < 0.02:  # noqa: PLR2004
        yield "email_bounced"
        return
    yield "email_delivered"
    if chance.random() < 0.4:  # noqa: PLR2004
        yield from ["email_opened"] * chance.choice([1, 1, 2])
        if chance.random() < 0.25:  # noqa: PLR2004
            yield from ["email_clicked"] * chance.choice([1, 2])
    yield from chance.choices([[], ["email_unsubscribed"], ["email_complained"]], [96, 3, 1])[0]


def _contacts(name: str) -> list[str]:
    return [_id(f"{name}/contact/{number}") for number in range(_CONTACTS[name])]


def _some(chance: random.Random, name: str, rate: float) -> list[str]:
    contacts = _contacts(name)
    return chance.choices(contacts, k=max(1, round(len(contacts) * rate)))


def _domain(contact: str) -> str:
    return random.Random(contact).choices(_DOMAINS, _DOMAIN_WEIGHTS)[0]  # noqa: S311


def _moment(chance: random.Random, day: date) -> datetime:
    return datetime.combine(day, time()) + timedelta(seconds=chance.randrange(86400))


def _id(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"https://example.com/{name}"))
