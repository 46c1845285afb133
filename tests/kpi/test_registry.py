"""Registry entries: kept unchanged, dropped with a reason, or rejected before anything is sent."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from aggregator.kpi import cli as registry_cli
from aggregator.kpi import jobs, registry
from aggregator.kpi.cli import main
from aggregator.kpi.registry import VARIABLE, Dropped, Kpi, RegistryError, load, parse
from tests.kpi_data import RUN, TRACE, entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

SEED = {
    "kpis": [
        {
            "id": "cmc-btc-price",
            "name": "Bitcoin Price (CMC)",
            "description": "Current Bitcoin price from CoinMarketCap",
            "type": "price",
            "active": True,
            "webhookUrl": "https://n8n.example.com/webhook/btc-price",
            "analysisConfig": {"chartType": "line", "alertThresholds": {"high": 50000, "low": 30000}},
            "metadata": {"source": "coinmarketcap", "updateFrequency": "daily", "category": "price"},
        }
    ],
    "metadata": {"lastUpdated": "2025-08-14T12:00:00Z", "version": "1.0.0", "totalKPIs": 1, "activeKPIs": 1},
}
SECRET = "secret-word"


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in entry().items() if name != field}


def parsed(*entries: Any) -> tuple[list[str], list[Dropped]]:
    found = parse(json.dumps({"kpis": entries}))
    return [kpi.id for kpi in found.kpis], found.dropped


def test_registry_of_the_product_is_parsed() -> None:
    assert parse(json.dumps(SEED)) == (
        [
            Kpi(
                id="cmc-btc-price",
                name="Bitcoin Price (CMC)",
                description="Current Bitcoin price from CoinMarketCap",
                type="price",
                active=True,
                webhook_url="https://n8n.example.com/webhook/btc-price",
                report_back=False,
                analysis_config={"chartType": "line", "alertThresholds": {"high": 50000, "low": 30000}},
                metadata={"source": "coinmarketcap", "updateFrequency": "daily", "category": "price"},
            )
        ],
        [],
    )


def test_inactive_entries_are_neither_sent_nor_validated() -> None:
    off, undecided = entry("off", active=False), without("active")
    assert parsed(off, entry("on"), undecided, {"active": False}, {}) == (["on"], [])


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " \n",
        "{",
        "[]",
        "null",
        "7",
        '"kpis"',
        "{}",
        '{"kpis": null}',
        '{"kpis": {}}',
        "{'kpis': []}",
        '{"kpis": [], }',
        '{"kpis": [NaN]}',
        '{"kpis": [Infinity]}',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "]" * 100_000,
        '{"a":' * 100_000,
        '{"kpis": ["unclosed]}',
        '{"kpis": ["unclosed\\',
        "<html><body>Not found</body></html>",
        json.dumps({"kpis": [entry(f"{number}", description="x" * 1000) for number in range(5000)]}),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_unreadable_registry_is_an_error(text: str | None) -> None:
    with pytest.raises(RegistryError, match="Nothing was sent") as raised:
        parse(text)
    assert len(str(raised.value)) < 300


BROKEN: dict[str, tuple[str, str]] = {
    "escaped lone surrogate": ('"\\ud800"', "contains half of a surrogate pair"),
    "lone surrogate": ('"\ud800"', "contains half of a surrogate pair"),
    "lone surrogate in a name": ('{"a\\udc00": 1}', "contains half of a surrogate pair"),
    "5,000 levels of lists": ("[" * 5000 + "]" * 5000, "has more than 200 levels of nesting"),
    "100,000 levels of objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "has more than 200 levels"),
    "201 levels": ("[" * 198 + "]" * 198, "has more than 200 levels"),
    "5,000 digits": ("9" * 5000, "contains a number that is too large"),
    "minus and 5,000 digits": ("-" + "9" * 5000, "contains a number that is too large"),
    "large exponent": ("1e999", "contains a number that is too large"),
    "NUL": ('"\\u0000"', "contains a NUL character"),
}


@pytest.mark.parametrize(("value", "reason"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("active", [True, False])
def test_unstorable_value_drops_only_its_entry(value: str, reason: str, active: bool) -> None:
    broken = json.dumps(entry("broken", active=active, metadata={"x": "here"})).replace('"here"', value)
    found = parse(f'{{"kpis": [{json.dumps(entry("a"))}, {broken}, {json.dumps(entry("b"))}]}}')
    assert [kpi.id for kpi in found.kpis] == ["a", "b"]
    assert [dropped.name for dropped in found.dropped] == ["broken"] * active
    assert all(dropped.reason.startswith(reason) for dropped in found.dropped)


@pytest.mark.parametrize("value", [value for value, _ in BROKEN.values()], ids=BROKEN)
def test_unstorable_value_outside_the_entries_drops_nothing(value: str) -> None:
    found = parse(f'{{"metadata": {value}, "kpis": [{json.dumps(entry("a"))}, {value}]}}')
    assert [kpi.id for kpi in found.kpis] == ["a"]
    assert [dropped.name for dropped in found.dropped] == ([] if value.startswith("{") else ["kpis[1]"])


def test_invalid_id_is_escaped_in_the_warning() -> None:
    found = parse(json.dumps({"kpis": [entry("a\ud800"), entry("b")]}))
    assert [dropped.name for dropped in found.dropped] == ["a\\ud800"]


def test_brackets_in_strings_are_not_nesting() -> None:
    text = '[{"\\' * 500
    (kpi,) = parse(json.dumps({"kpis": [entry(description=text)]})).kpis
    assert kpi.description == text


def test_byte_order_mark_is_ignored() -> None:
    assert [kpi.id for kpi in parse("\ufeff" + json.dumps({"kpis": [entry("a")]})).kpis] == ["a"]


def test_eight_thousand_kpis_are_parsed() -> None:
    ids, dropped = parsed(*[entry(f"kpi-{number}", description="x" * 300) for number in range(8000)])
    assert (len(ids), dropped) == (8000, [])


INVALID: dict[str, tuple[Any, str]] = {
    "no id": (without("id"), "id: Field required"),
    "no name": (without("name"), "name: Field required"),
    "no type": (without("type"), "type: Field required"),
    "no webhookUrl": (without("webhookUrl"), "webhookUrl: Field required"),
    "empty id": (entry(""), "id: String should have at least 1 character"),
    "blank id": (entry(" \t"), "id: must not be blank"),
    "blank before id": (entry(" a"), "id: must not begin or end with whitespace"),
    "blank after id": (entry("a\u00a0"), "id: must not begin or end with whitespace"),
    "line break after id": (entry("a\n"), "id: must not begin or end with whitespace"),
    "control character in id": (entry("a\x1bb"), "id: must not contain control or invisible characters"),
    "zero-width blank in id": (entry("a\u200bb"), "id: must not contain control or invisible characters"),
    "change of direction in id": (entry("a\u202eb"), "id: must not contain control or invisible characters"),
    "dot as id": (entry("."), "id: must not be . or .."),
    "two dots as id": (entry(".."), "id: must not be . or .."),
    "id that is too long in NFC": (entry("\u0958" * 101), "id: String should have at most 200 characters"),
    "number as id": (entry(7), "id: Input should be a valid string"),
    "long id": (entry("x" * 201), "id: String should have at most 200 characters"),
    "null name": (entry(name=None), "name: Input should be a valid string"),
    "text as active": (entry(active=f"yes {SECRET}"), "active: Input should be a valid boolean"),
    "number as active": (entry(active=1), "active: Input should be a valid boolean"),
    "text as reportBack": (entry(reportBack="yes"), "reportBack: Input should be a valid boolean"),
    "text as metadata": (entry(metadata=SECRET), "metadata: Input should be a valid dictionary"),
    "javascript": (entry(webhookUrl=f"javascript:{SECRET}"), "webhookUrl: URL scheme should be 'http' or 'https'"),
    "file": (entry(webhookUrl="file:///etc/passwd"), "webhookUrl: URL scheme should be 'http' or 'https'"),
    "no scheme": (entry(webhookUrl="n8n.example.com/x"), "webhookUrl: Input should be a valid URL"),
    "no host": (entry(webhookUrl="http://"), "webhookUrl: Input should be a valid URL"),
    "not an address": (entry(webhookUrl={"$ne": SECRET}), "webhookUrl: Input should be a valid string"),
    "long address": (
        entry(webhookUrl="https://n8n.example.com/" + "x" * 2000),
        "webhookUrl: String should have at most",
    ),
    "password": (entry(webhookUrl=f"https://u:{SECRET}@n8n.example.com/x"), "webhookUrl: must not contain credentials"),
    "user": (entry(webhookUrl=f"https://{SECRET}@n8n.example.com/x"), "webhookUrl: must not contain credentials"),
    "empty user": (entry(webhookUrl="https://:p@n8n.example.com/x"), "webhookUrl: must not contain credentials"),
    "NUL in id": (entry("a\0b"), "contains a NUL character"),
    "NUL in metadata": (entry(metadata={"a": [{"b\0": 1}]}), "contains a NUL character"),
    "NUL in an unknown field": (entry(other="\0"), "contains a NUL character"),
    "text": ("https://n8n.example.com/x", "Input should be a valid dictionary"),
    "null": (None, "Input should be a valid dictionary"),
    "list": ([entry()], "Input should be a valid dictionary"),
}


@pytest.mark.parametrize(("invalid", "reason"), INVALID.values(), ids=INVALID)
def test_invalid_entry_is_dropped_with_its_name_and_reason(invalid: Any, reason: str) -> None:
    ids, (dropped,) = parsed(entry("before"), invalid, entry("after"))
    assert ids == ["before", "after"]
    assert dropped.reason.startswith(reason)
    assert SECRET not in dropped.reason
    name = invalid.get("id") if isinstance(invalid, dict) else None
    assert dropped.name == (repr(name)[1:61].rstrip("'") if isinstance(name, str) and name else "kpis[1]")


def test_entry_with_an_infinite_number_is_dropped() -> None:
    text = json.dumps({"kpis": [entry("a", metadata={"n": [0]}), entry("b")]}).replace("[0]", "[1e999]")
    found = parse(text)
    assert ([kpi.id for kpi in found.kpis], found.dropped) == (["b"], [("a", "contains a number that is too large")])


def test_deep_metadata_is_kept() -> None:
    deep: Any = 1
    for _ in range(90):
        deep = [{"deep": deep}]
    (kpi,) = parse(json.dumps({"kpis": [entry(metadata={"deep": deep})]})).kpis
    assert kpi.metadata == {"deep": deep}


def test_first_entry_with_an_id_is_used() -> None:
    found = parse(json.dumps({"kpis": [entry("a", name="First", active=False), entry("a"), entry("a", name="Third")]}))
    assert [kpi.name for kpi in found.kpis] == ["Name of a"]
    assert found.dropped == [("a", "id: an earlier entry has the same id and is used")]


def test_unicode_forms_of_one_id_are_one_kpi() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    found = parse(json.dumps({"kpis": [entry(decomposed), entry(composed)]}))
    assert [kpi.id for kpi in found.kpis] == [composed]
    assert [dropped.reason for dropped in found.dropped] == ["id: an earlier entry has the same id and is used"]


@pytest.mark.parametrize(
    "id_",
    [
        "...",
        ".a",
        "👨\u200d👩\u200d👧",
        "a/b/c",
        "🦊",
        "ümläut",
        "{{ var.value.secret }}",
        "={{ $json.x }}",
        "../..",
        "a b",
        "<b>",
    ],
)
def test_unusual_texts_are_kept(id_: str) -> None:
    found = parse(json.dumps({"kpis": [entry(id_, name=id_, description=id_, metadata={id_: id_})]}))
    (kpi,) = found.kpis
    assert (kpi.id, kpi.name, kpi.description, kpi.metadata) == (id_, id_, id_, {id_: id_})


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("https://n8n.example.com:8443/webhook/a?b=c", "https://n8n.example.com:8443/webhook/a?b=c"),
        ("http:\\\\169.254.169.254\\latest", "http://169.254.169.254/latest"),
        ("http://2130706433/x", "http://127.0.0.1/x"),
        ("http://0x7f.1/x", "http://127.0.0.1/x"),
        ("HTTPS://N8N.Example.COM/Webhook", "https://n8n.example.com/Webhook"),
        ("https://n8n。example。com/x", "https://n8n.example.com/x"),
    ],
)
def test_url_is_stored_in_the_form_of_the_parser(given: str, understood: str) -> None:
    (kpi,) = parse(json.dumps({"kpis": [entry(webhookUrl=given)]})).kpis
    assert kpi.webhook_url == understood


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text() | st.sampled_from(list(entry())), parts),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(JSON | st.fixed_dictionaries({name: JSON | st.just(value) for name, value in entry().items()})))
def test_every_accepted_entry_can_be_stored(kpi_db: psycopg.Connection[Any], entries: list[Any]) -> None:
    try:
        found = parse(json.dumps({"kpis": entries}))
    except RegistryError:
        return
    kpi_db.execute("delete from kpi.jobs")
    jobs.create(kpi_db, TRACE, found.kpis, **RUN)
    stored = kpi_db.execute("select kpi_id from kpi.job_kpis").fetchall()
    assert sorted(stored) == sorted((kpi.id,) for kpi in found.kpis)
    assert len(found.kpis) + len(found.dropped) <= len(entries)


class TestSchema:
    def test_schema_accepts_valid_and_rejects_invalid_entries(self) -> None:
        validator = jsonschema.Draft202012Validator(registry.json_schema())
        assert list(validator.iter_errors(SEED)) == []
        assert list(validator.iter_errors({"kpis": [entry(id_) for id_ in ("...", ".a", "a b", "🦊")]})) == []
        ids = [
            name for name in INVALID if "id" in name.split() and name not in {"NUL in id", "id that is too long in NFC"}
        ]
        for name in (*ids, "no name", "no type", "no webhookUrl", "javascript", "text as metadata"):
            assert list(validator.iter_errors({"kpis": [INVALID[name][0]]})), name

    def test_documentation_has_every_field_with_its_description(self, repository: Path) -> None:
        text = (repository / "docs" / "products" / "kpi.md").read_text()
        fields = registry.json_schema()["$defs"]["Kpi"]["properties"]
        for name, field in fields.items():
            assert f"| `{name}` | " in text
            assert f"| {field['description']} |" in text


class TestCommand:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "registry.json"
        path.write_text(json.dumps(SEED))
        return path

    def test_valid_registry_lists_kpis_without_their_paths(
        self, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["validate", str(file)]) == 0
        output = capsys.readouterr().out
        assert "KPIs to send: 1" in output
        assert "cmc-btc-price" in output
        assert "n8n.example.com" in output
        assert "webhook/btc-price" not in output

    def test_dropped_entries_are_listed_and_exit_code_is_1(
        self, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file.write_text(json.dumps({"kpis": [entry("[red]a[/]"), entry("b", webhookUrl=f"ftp://{SECRET}")]}))
        assert main(["validate", str(file)]) == 1
        output = capsys.readouterr().out
        assert "[red]a[/]" in output
        assert "dropped b: webhookUrl: URL scheme should be 'http' or 'https'" in output
        assert SECRET not in output

    def test_dash_reads_standard_input(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(SEED)))
        assert main(["validate", "-"]) == 0
        assert "cmc-btc-price" in capsys.readouterr().out

    def test_show_reads_the_variable(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps(SEED))
        assert main(["show"]) == 0
        assert "cmc-btc-price" in capsys.readouterr().out

    @pytest.mark.parametrize("content", [b"{", b"\xff"])
    def test_unreadable_input_is_a_one_line_error(
        self, file: Path, capsys: pytest.CaptureFixture[str], content: bytes
    ) -> None:
        file.write_bytes(content)
        assert main(["validate", str(file)]) == 1
        assert main(["validate", str(file.parent / "missing")]) == 1
        assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.usefixtures("metadata_database")
class TestChanges:
    @pytest.fixture
    def change(self, tmp_path: Path) -> Callable[..., int]:
        """Execute a command; entries are the content of its file."""

        def change(command: str, *entries: Any, yes: bool = True) -> int:
            name, *arguments = command.split()
            if entries:
                path = tmp_path / "registry.json"
                path.write_text(json.dumps({"kpis": entries}))
                arguments = [str(path)]
            return main([name, *arguments, *(["--yes"] if yes and name != "diff" else [])])

        return change

    @pytest.fixture
    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], str]], None]:
        """Answer the question of a command on a terminal."""

        def answer(reply: Callable[[], str]) -> None:
            monkeypatch.setattr("sys.stdin", Mock(isatty=lambda: True))
            monkeypatch.setattr("builtins.input", lambda _: reply())

        return answer

    def test_apply_prints_changed_fields_without_values_and_writes_the_variable(
        self, change: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert change("apply", entry("a"), entry("b"), entry("c")) == 0
        assert set(ids()) == {"a", "b", "c"}
        capsys.readouterr()

        url = f"https://n8n.example.com/webhook/{SECRET}"
        new = [entry("b", webhookUrl=url), entry("c", active=False), entry("d")]
        assert change("diff", *new) == 0
        assert ids() == ["a", "b", "c"]
        assert change("apply", *new) == 0

        output = capsys.readouterr().out
        changes = ["- a", "~ b: webhookUrl", "~ c: active -> inactive", "+ d (active)"]
        assert output.splitlines()[:-1] == changes * 2
        assert SECRET not in output
        assert ids() == ["b", "d"]

    def test_entry_that_the_dispatch_would_drop_is_refused(
        self, change: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        change("apply", entry("a"))
        before = load()

        assert change("apply", entry("a"), entry("b", webhookUrl=f"ftp://{SECRET}")) == 1
        assert change("diff", entry("a"), entry("a")) == 1

        output, error = capsys.readouterr()
        assert "refused b: webhookUrl: URL scheme should be 'http' or 'https'" in output
        assert "refused a: id: an earlier entry has the same id and is used" in output
        assert "Nothing was changed." in error
        assert SECRET not in output + error
        assert load() == before

    def test_enable_and_disable_change_one_entry_only(self, change: Callable[..., int]) -> None:
        change("apply", entry("a", metadata={"x": "ä"}), entry("b", active=False, other=[1.5]))
        assert change("enable b") == 0
        assert change("disable a") == 0

        assert json.loads(load() or "") == {
            "kpis": [entry("a", active=False, metadata={"x": "ä"}), entry("b", active=True, other=[1.5])]
        }

    def test_enable_refuses_an_invalid_entry_and_disable_repairs_one(
        self, change: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = {"type": ""}
        change("apply", entry("a"), entry("b", active=False, **broken))
        assert change("enable b") == 1
        assert "refused b: type: String should have at least 1 character" in capsys.readouterr().out
        assert ids() == ["a"]

        store(entry("a", **broken), entry("b", **broken), entry("c", active=False))
        assert change("disable a") == 0
        assert change("enable c") == 0
        assert [dropped.name for dropped in parse(load()).dropped] == ["b"]
        assert ids() == ["c"]

    def test_unknown_id_is_an_error(self, change: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
        change("apply", entry("a"))
        assert change("disable A") == 1
        assert "No KPI has the id 'A'. Nothing was changed." in capsys.readouterr().err

    def test_change_needs_a_confirmation(
        self,
        change: Callable[..., int],
        answer: Callable[[Callable[[], str]], None],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        change("apply", entry("a"))
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert change("disable a", yes=False) == 1
        assert "confirm with --yes" in capsys.readouterr().err
        answer(lambda: "")
        assert change("disable a", yes=False) == 1
        assert ids() == ["a"]
        answer(lambda: "y")
        assert change("disable a", yes=False) == 0
        assert ids() == []

    @pytest.mark.parametrize("exists", [True, False])
    def test_variable_that_changed_after_it_was_shown_is_not_overwritten(
        self,
        exists: bool,
        change: Callable[..., int],
        answer: Callable[[Callable[[], str]], None],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        if exists:
            change("apply", entry("a"))

        def meanwhile() -> str:
            store(entry("b"))
            return "y"

        answer(meanwhile)
        assert change("apply", entry("c"), yes=False) == 1
        assert "The registry changed after it was shown. Nothing was changed." in capsys.readouterr().err
        assert ids() == ["b"]

    def test_registry_outside_of_airflows_database_is_refused(
        self, change: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps(SEED))
        assert change("disable cmc-btc-price") == 1
        assert "environment variable or a secrets backend" in capsys.readouterr().err

    def test_database_error_is_one_line_without_values(
        self, change: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(registry_cli, "load", lambda: None)
        with create_session() as session:
            session.execute(text("drop table variable"))

        assert change("apply", entry("a", name=SECRET)) == 1
        error = capsys.readouterr().err
        assert "Airflow's database refused the statement or did not respond: OperationalError." in error
        assert SECRET not in error
        assert error.count("\n") == 1


def store(*entries: Any) -> None:
    Variable.set(VARIABLE, json.dumps({"kpis": entries}))


def ids() -> list[str]:
    return [kpi.id for kpi in parse(load()).kpis]
