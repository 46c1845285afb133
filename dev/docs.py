"""Generate the parts of the documents that derive from code: ``make docs`` writes them, a test compares them."""

from __future__ import annotations

import inspect
import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.timetables.trigger import CronTriggerTimetable

from aggregator.core import settings
from aggregator.core.catalog import CATALOG, Schedule
from aggregator.core.metrics import COUNTERS, DURATION
from aggregator.core.timetable import OffsetCronTimetable
from aggregator.kpi.registry import json_schema
from dev.stack import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo


def documents() -> dict[Path, str]:
    """Path of every document that has generated parts → its current text."""
    folder = REPOSITORY / "docs"
    schema = json.dumps(json_schema(), indent=2) + "\n"
    return {path: renew(path.read_text()) for path in [REPOSITORY / "README.md", *folder.rglob("*.md")]} | {
        folder / "products" / "kpi-registry.schema.json": schema
    }


def renew(text: str) -> str:
    """A document with current tables.

    Args:
        text: The document. ``<!-- settings: … -->`` and ``<!-- /settings -->`` enclose the table of settings. The names
            of the other tables are the keys of ``TABLES``.
    """
    enclosed = rf"(<!-- ({'|'.join(TABLES)}):.*?-->\n).*?(<!-- /\2 -->)"
    return re.sub(enclosed, lambda found: found[1] + TABLES[found[2]]() + found[3], text, flags=re.DOTALL)


def settings_table() -> str:
    """Every setting with its default, and its meaning from the docstring of its class."""
    rows = []
    for product in settings.ALL:
        attributes = inspect.cleandoc(product.__doc__ or "").partition("Attributes:\n")[2]
        meanings = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE))
        rows += [
            f"| `{name.upper()}` | {_default(field)} | {_markdown(meanings[name])} |\n"
            for name, field in product.model_fields.items()
        ]
    return "".join(["| variable | default | meaning |\n|---|---|---|\n", *rows])


def metrics_table() -> str:
    """Every metric, with its kind and what it counts."""
    rows = [f"| `{name}` | counter | {meaning} |\n" for name, meaning in COUNTERS.values()]
    timer = f"| `{DURATION}` | timer | Milliseconds from the start of a task's process to its result |\n"
    return "".join(["| metric | kind | what it counts |\n|---|---|---|\n", *rows, timer])


def deadlines_table() -> str:
    """Every DAG with its deadline."""
    rows = [f"| `{dag_id}` | {facts.deadline // timedelta(minutes=1)} minutes |\n" for dag_id, facts in CATALOG.items()]
    return "".join(["| DAG | deadline, from when a run is due |\n|---|---|\n", *rows])


def dags_table() -> str:
    """Every DAG, with what it does, its schedule and the tables that it writes."""
    rows = [
        f"| [`{dag_id}`](dags/{dag_id}.py) | {facts.description} | {_when(facts.schedule)} "
        f"| {', '.join(f'`{table}`' for table in facts.writes)} |\n"
        for dag_id, facts in CATALOG.items()
    ]
    return "".join(["| DAG | what it does | schedule (UTC) | writes |\n|---|---|---|---|\n", *rows])


def messages_table() -> str:
    """Every DAG that has a message of the former queue."""
    rows = [f"| `{dag_id}` | `{facts.message}` |\n" for dag_id, facts in CATALOG.items() if facts.message]
    return "".join(["| DAG | message |\n|---|---|\n", *rows])


TABLES = {
    "settings": settings_table,
    "metrics": metrics_table,
    "deadlines": deadlines_table,
    "dags": dags_table,
    "messages": messages_table,
}
"""Name in a document's comments → the function that makes the table."""


def _when(schedule: Schedule) -> str:
    if schedule.offset is None:
        return f"{CronTriggerTimetable(schedule.cron, timezone='UTC').description}, without a data interval"
    return OffsetCronTimetable(schedule.cron, offset=schedule.offset).summary.replace(" UTC", "")


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is None or default == {}:
        return "not set"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def main() -> None:
    """Write every document whose generated parts are out of date."""
    for path, text in documents().items():
        if path.read_text() != text:
            path.write_text(text)
            print(f"{path.relative_to(REPOSITORY)} was updated")


if __name__ == "__main__":
    main()
