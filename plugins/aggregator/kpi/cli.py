"""Commands that check, show and change the KPI registry: ``python -m aggregator.kpi.registry COMMAND``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from aggregator.core.errors import AggregatorError
from aggregator.kpi.registry import VARIABLE, Registry, RegistryError, load, normalized, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOTHING = "Nothing was changed."

_CHANGED = f"The registry changed after it was shown. {_NOTHING} Repeat the command to see the difference."

_SHADOWED = (
    f"The registry is in an environment variable or a secrets backend, not in Airflow's database. {_NOTHING} Change it "
    "there."
)


class Change(NamedTuple):
    """A change of the registry.

    Attributes:
        before: The Variable; None if it does not exist.
        after: The new value.
        refuse_all: Whether all entries that would be dropped are refused, or only those that are not dropped today.
    """

    before: str | None
    after: str
    refuse_all: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute one command.

    Returns:
        The exit code: 0; 1 if the registry cannot be read or written, or the dispatch would drop an entry.
    """
    options = _parser().parse_args(arguments)
    # Without a terminal, rich would wrap lines at 80 characters.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    try:
        return 0 if _execute(options, console) else 1
    except (AggregatorError, OSError, UnicodeError) as error:
        print(error, file=sys.stderr)
    except SQLAlchemyError as error:
        # The text of the error has the statement with its values.
        print(
            f"Airflow's database refused the statement or did not respond: {type(error).__name__}. {_NOTHING} Check "
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN.",
            file=sys.stderr,
        )
    return 1


def _execute(options: argparse.Namespace, console: Console) -> bool:
    """Whether the command did what it was asked for."""
    if options.command in {"validate", "show"}:
        registry = parse(_read(options.file) if options.command == "validate" and options.file else load())
        _list(registry, console)
        return not registry.dropped
    change = _change(options)
    if not _accepted(change, console):
        return False
    if options.command == "diff" or not _differences(change.before, change.after):
        return True
    if not options.yes and not _confirmed():
        print(_NOTHING)
        return False
    _write(change)
    console.print(f"Changed the Variable {VARIABLE}. The next run of kpi_dispatch uses it.", highlight=False)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aggregator.kpi.registry", description=f"Check, show and change the Airflow Variable {VARIABLE}."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    file = "JSON file, or - for standard input"
    validate = commands.add_parser("validate", help="list the KPIs to send and the entries that would be dropped")
    validate.add_argument("file", nargs="?", metavar="FILE", help=f"{file} (default: the Variable)")
    commands.add_parser("show", help="list the KPIs of the Variable, and the entries that are dropped")
    difference = commands.add_parser("diff", help="print what `apply` would change")
    difference.add_argument("file", metavar="FILE", help=file)
    apply = commands.add_parser("apply", help="replace the Variable by a file")
    apply.add_argument("file", metavar="FILE", help=file)
    enable = commands.add_parser("enable", help="make a KPI active")
    disable = commands.add_parser("disable", help="make a KPI inactive")
    for command in (enable, disable):
        command.add_argument("id", metavar="ID", help="id of the KPI")
    for command in (apply, enable, disable):
        command.add_argument("--yes", action="store_true", help="change it without asking")
    return parser


def _read(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text()


def _list(registry: Registry, console: Console) -> None:
    table = Table("id", "name", "type", "host", "reports back", title=f"KPIs to send: {len(registry.kpis)}")
    for kpi in registry.kpis:
        # The path is left out, because it may be the only secret of an unprotected webhook.
        host = urlsplit(kpi.webhook_url).netloc
        table.add_row(*map(escape, [kpi.id, kpi.name, kpi.type, host]), "yes" if kpi.report_back else "no")
    console.print(table)
    for dropped in registry.dropped:
        console.print(f"[red]dropped[/] {escape(dropped.name)}: {escape(dropped.reason)}", highlight=False)


def _change(options: argparse.Namespace) -> Change:
    before = load()
    if options.command in {"diff", "apply"}:
        return Change(before, _read(options.file), refuse_all=True)
    parse(before)  # An unreadable registry is an error with a reason.
    return Change(before, _with_active(before or "", options.id, active=options.command == "enable"), refuse_all=False)


def _with_active(text: str, id_: str, *, active: bool) -> str:
    """Set ``active`` of the entries with an id, and keep everything else."""
    try:
        document = json.loads(text.removeprefix("\ufeff"))
        entries = [
            entry
            for entry in document["kpis"]
            if isinstance(entry, dict) and normalized(entry.get("id")) == normalized(id_)
        ]
        if not entries:
            msg = f"No KPI has the id {id_!r}. {_NOTHING} List the ids with: python -m aggregator.kpi.registry show"
            raise RegistryError(msg)
        if all((entry.get("active", False) is not False) is active for entry in entries):
            return text
        for entry in entries:
            entry["active"] = active
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        msg = f"A value of the registry cannot be written as JSON again. {_NOTHING} Edit the Variable {VARIABLE}."
        raise RegistryError(msg) from None


def _accepted(change: Change, console: Console) -> bool:
    """Print what a change does, and whether it is refused."""
    after = parse(change.after)
    lines = _differences(change.before, change.after)
    for line in lines or ["No change."]:
        console.print(escape(line), highlight=False)
    known = set() if change.refuse_all else {*parse(change.before).dropped}
    refused = [dropped for dropped in after.dropped if dropped not in known]
    for dropped in refused:
        console.print(f"[red]refused[/] {escape(dropped.name)}: {escape(dropped.reason)}", highlight=False)
    if refused:
        print(f"kpi_dispatch would not send these entries. {_NOTHING} Correct them.", file=sys.stderr)
    return not refused


def _differences(before: str | None, after: str) -> list[str]:
    """The changed entries, with the names of their changed fields. Values are left out: a URL may be a secret."""
    old, new = _by_id(before), _by_id(after)
    lines = [f"- {id_}" for id_ in old if id_ not in new]
    for id_, entry in new.items():
        if id_ not in old:
            lines.append(f"+ {id_} ({_state(entry)})")
        elif entry != old[id_]:
            was, now = _state(old[id_]), _state(entry)
            fields = sorted(key for key in {*entry, *old[id_]} - {"active"} if entry.get(key) != old[id_].get(key))
            parts = [*([f"{was} -> {now}"] if was != now else []), *fields]
            lines.append(f"~ {id_}: {', '.join(parts)}")
    if not lines and before is not None and _document(before) != _document(after):
        lines.append("~ order, or fields outside of the entries")
    return lines


def _by_id(text: str | None) -> dict[str, dict[str, Any]]:
    """Entries by id. Those without an id, or with that of an earlier entry, have their position in the name."""
    found: dict[str, dict[str, Any]] = {}
    document = _document(text)
    entries = document.get("kpis") if isinstance(document, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        fields = entry if isinstance(entry, dict) else {"": entry}
        id_ = normalized(fields.get("id"))
        name = repr(id_)[1:-1] if isinstance(id_, str) and id_ else f"kpis[{index}]"
        found[name if name not in found else f"{name}, kpis[{index}]"] = fields
    return found


def _document(text: str | None) -> Any:
    try:
        return json.loads((text or "").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return text


def _state(entry: dict[str, Any]) -> str:
    return "inactive" if entry.get("active", False) is False else "active"


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        print("Without a terminal, confirm with --yes.", file=sys.stderr)
        return False
    return input("Change the registry? [y/N] ").strip().lower() in {"y", "yes"}


def _write(change: Change) -> None:
    """Write the Variable, unless it changed since it was read.

    Raises:
        RegistryError: The Variable changed, or its value comes from somewhere else.
    """
    # These imports take seconds.
    from airflow.models.variable import Variable  # noqa: PLC0415
    from airflow.utils.session import create_session  # noqa: PLC0415

    try:
        with create_session() as session:
            row = session.scalar(select(Variable).where(Variable.key == VARIABLE).with_for_update())
            stored = row.get_val() if row else None
            if stored != change.before:
                raise RegistryError(_SHADOWED if load() == change.before else _CHANGED)
            if row:
                row.set_val(change.after)
            else:
                new = {"key": VARIABLE, "val": change.after, "description": "KPIs that kpi_dispatch sends"}
                session.add(Variable(**new))  # type: ignore[no-untyped-call]  # Airflow's
    except IntegrityError:
        raise RegistryError(_CHANGED) from None
