from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.analytics_engine.dialect import FUNCTIONS, DialectError, bind, parse
from aggregator.analytics_engine.dialect.functions import _call
from aggregator.analytics_engine.dialect.tokens import AnalyticsEngineSql
from aggregator.analytics_engine.types import DATASET_COLUMNS
from aggregator.core.errors import PermanentError
from dev.analytics_engine.client import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aggregator.analytics_engine.dialect import Parameter

CLICKS = """-- clicks of a day, by hire
SELECT
  blob4 AS hire_id,  -- the hire's id
  sum(_sample_interval * (1 - double2)) AS valid,
  sum(_sample_interval * double2) AS invalid
FROM clicks
WHERE timestamp >= toDateTime('2026-11-15 00:00:00') AND timestamp < toDateTime('2026-11-16 00:00:00')
GROUP BY hire_id
FORMAT JSON
"""

ACCEPTED = [
    CLICKS,
    "SHOW TABLES FORMAT JSON",
    "show tables\nformat JSONEachRow ",
    "SELECT 'Hello' AS message FORMAT JSON",
    "SELECT count() AS n FROM clicks FORMAT TabSeparated",
    "SELECT count(DISTINCT blob4) AS hires, sum(DISTINCT double1) AS total FROM clicks FORMAT JSON",
    "SELECT blob1, double1 FROM clicks LIMIT 10 OFFSET 20 FORMAT JSONEachRow",
    "SELECT blob1 AS host, count() AS n FROM clicks GROUP BY host HAVING n > 1 ORDER BY n DESC, host ASC FORMAT JSON",
    "SELECT if(double3 <= 0, 'FREEZING', 'NOT') AS description FROM t FORMAT JSON",
    "SELECT quantileExactWeighted(0.95)(double1, _sample_interval) AS p95 FROM t FORMAT JSON",
    "SELECT topK(3)(blob1) AS top, argMax(blob1, double1) AS biggest FROM t FORMAT JSON",
    "SELECT toStartOfInterval(timestamp, INTERVAL '5' MINUTE) AS date, count() AS count FROM t FORMAT JSON",
    "SELECT double1 FROM t WHERE timestamp > now() - INTERVAL '1' DAY FORMAT JSON",
    "SELECT double1 FROM t WHERE blob1 LIKE 'error%' OR blob2 NOT ILIKE '%.jpg' FORMAT JSON",
    "SELECT double1 FROM t WHERE blob1 IN ('a', 'b') AND blob2 NOT IN ('c') AND double1 BETWEEN 1 AND 2.5 FORMAT JSON",
    "SELECT double1 FROM t WHERE NOT (double1 <> 3 OR double2 != -4) AND true FORMAT JSON",
    "SELECT double1 * 1.8 + 32 / 2 % 5 AS f FROM t WHERE blob1 = 'it''s \\\\ ; -- /* */ # UNION SELECT' FORMAT JSON",
    "SELECT extract(HOUR FROM timestamp) AS hour, position(':' IN blob1) AS p FROM t FORMAT JSON",
    "SELECT format('{}', blob1) AS text FROM t FORMAT JSON",
    "show timezones format JSON",
    "SHOW TIMEZONE FORMAT TabSeparated",
    "SELECT count() AS n FROM t FORMAT json",
    "SELECT count() AS n FROM t format tabseparated",
    "SELECT quantileWeighted(0.5, double1, _sample_interval) AS median FROM t FORMAT JSON",
    "SELECT toLower(blob1) AS l, toUpper(blob1) AS u FROM t FORMAT JSON",
    "SELECT blob1 AS host FROM t LIMIT ALL FORMAT JSON",
    "SELECT blob1 AS host FROM t LIMIT ALL OFFSET 2 FORMAT JSON",
    "SELECT a FROM (SELECT blob1 AS a FROM t) FORMAT JSON",
    "SELECT avg(n) AS mean FROM (SELECT blob1 AS a, count() AS n FROM t GROUP BY a LIMIT 9) WHERE n > 2 FORMAT JSON",
    "SELECT max(b) AS c FROM (SELECT a AS b FROM (SELECT double1 AS a FROM t)) FORMAT JSON",
    "SELECT time FROM (SELECT timestamp AS time FROM t) FORMAT JSON",
    "SELECT count() AS count, max(timestamp) AS max, min(double1) AS min FROM t FORMAT JSON",
    "SELECT argMax(blob1, timestamp) AS newest FROM t FORMAT JSON",
    "SELECT if(blob1 LIKE '5%', double1, 0) AS x, if(true, 'a', blob1) AS y FROM t FORMAT JSON",
    "SELECT if(true, now(), timestamp) AS z FROM t FORMAT JSON",
    "SELECT sum(if(blob1 = 'a', _sample_interval, 0)) AS x, sumIf(double1, blob1 = 'a') AS y FROM t FORMAT JSON",
    "SELECT count() AS n FROM index FORMAT JSON",
    "SELECT blob1 FROM t WHERE dataset = 't' AND index1 = '🦊' FORMAT JSON -- the end; of it",
]

REFUSED = {
    # statements
    "SELECT 1 AS a FORMAT JSON; DROP TABLE clicks": "`;` in line 1: send one statement",
    "SELECT 1 AS a FORMAT JSON;": "`;` in line 1: send one statement",
    "INSERT INTO t VALUES (1)": "function VALUES",
    "DROP TABLE t": "statement: only SELECT",
    "SHOW DATABASES FORMAT JSON": "statement: only SELECT",
    "SHOW TABLES": "statement: only SELECT",
    "SHOW TABLES FORMAT CSV": "FORMAT: end the query with FORMAT and one of JSON",
    "FROM t": "statement: only SELECT",
    "": "statement: only SELECT",
    " -- nothing": "statement: only SELECT",
    "(SELECT 1 AS a) FORMAT JSON": "statement: only SELECT",
    "EXPLAIN SELECT 1 AS a FORMAT JSON": "statement: only SELECT",
    # clauses
    "SELECT count() AS n FROM t": "FORMAT: end the query with FORMAT and one of JSON",
    "SELECT count() AS n FROM t FORMAT CSV": "FORMAT: end the query with FORMAT and one of JSON",
    "SELECT count() AS n FROM t FORMAT JSON SETTINGS max_threads = 1": "FORMAT: end the query with FORMAT and one",
    "SELECT count() AS n FROM t FORMAT JSON FORMAT JSON": "FROM in line 1: exactly one name",
    "SELECT count() AS n WHERE double1 = 1 FROM t FORMAT JSON": "FROM in line 1: the clause is repeated, or comes",
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x FORMAT JSON": "neither for a CTE",
    "SELECT a FROM (SELECT blob1 AS a FROM t) AS u FORMAT JSON": "one sub-query without a name",
    "SELECT a FROM (SELECT blob1 AS a FROM t), u FORMAT JSON": "one sub-query without a name",
    "SELECT a FROM (SELECT blob1 AS a FROM t FORMAT JSON": "the parenthesis of the sub-query is not closed",
    "SELECT a FROM (SELECT blob1 AS a FROM t FORMAT JSON) FORMAT JSON": "FROM in line 1: exactly one name",
    "SELECT a FROM (SELECT blob1 AS a FROM t UNION ALL SELECT blob1 AS a FROM t) FORMAT JSON": "UNION does not exist",
    "SELECT a FROM ((SELECT blob1 AS a FROM t)) FORMAT JSON": "no sub-queries",
    "SELECT blob2 FROM (SELECT blob1 AS a FROM t) FORMAT JSON": "column blob2: neither",
    "SELECT a FROM (SELECT * FROM t) FORMAT JSON": "`*`",
    "SELECT max(a) AS b FROM (SELECT blob1 AS a FROM t) FORMAT JSON": "function max: it takes no String",
    "SELECT blob1 FROM t WHERE blob1 IN (SELECT blob2 FROM u) FORMAT JSON": "SELECT in line 1: no sub-queries",
    "SELECT blob1 FROM t JOIN u ON true FORMAT JSON": "JOIN does not exist",
    "SELECT blob1 FROM t LEFT JOIN u ON true FORMAT JSON": "JOIN does not exist",
    "SELECT blob1 FROM t, u FORMAT JSON": "FROM in line 1: exactly one name",
    "SELECT blob1 FROM t AS u FORMAT JSON": "FROM in line 1: exactly one name",
    "SELECT blob1 FROM db.t FORMAT JSON": "names are not qualified",
    "SELECT t.blob1 FROM t FORMAT JSON": "names are not qualified",
    "SELECT blob1 FROM t FINAL FORMAT JSON": "FROM in line 1: exactly one name",
    "SELECT blob1 FROM file('/etc/passwd') FORMAT JSON": "function file",
    "SELECT blob1 FROM count() FORMAT JSON": "FROM in line 1: exactly one name",
    "SELECT blob1 FROM t ARRAY JOIN blob2 FORMAT JSON": "JOIN does not exist",
    "SELECT blob1 FROM t PREWHERE blob1 = '' FORMAT JSON": "FROM in line 1: exactly one name",
    "SELECT blob1 FROM t UNION ALL SELECT blob1 FROM u FORMAT JSON": "UNION does not exist",
    "SELECT blob1 FROM t GROUP BY blob1 WITH TOTALS FORMAT JSON": "nor as a modifier",
    "SELECT count() AS n FROM t GROUP BY ALL FORMAT JSON": "column ALL: neither",
    "SELECT blob1 FROM t LIMIT ALL ALL FORMAT JSON": "LIMIT in line 1: exactly one",
    "SELECT ALL blob1 FROM t FORMAT JSON": "alias: a selected expression gets one name",
    "SELECT blob1 FROM t OFFSET ALL FORMAT JSON": "OFFSET in line 1: exactly one",
    "SELECT blob1 FROM t LIMIT 1, 2 FORMAT JSON": "LIMIT in line 1: exactly one",
    "SELECT blob1 FROM t LIMIT 1 BY blob1 FORMAT JSON": "LIMIT in line 1: exactly one",
    "SELECT blob1 FROM t ORDER BY blob1 FORMAT JSON": "ORDER BY: order by an alias",
    "SELECT count() AS n FROM t ORDER BY count() FORMAT JSON": "ORDER BY: order by an alias",
    "SELECT count() AS n FROM t ORDER BY 1 FORMAT JSON": "ORDER BY: order by an alias",
    "SELECT count() AS n FROM t ORDER BY n NULLS FIRST FORMAT JSON": "not a complete SELECT",
    "SELECT DISTINCT blob1 FROM t FORMAT JSON": "DISTINCT in line 1: it comes first in the arguments",
    "SELECT sum(double1 ORDER BY double2) AS a FROM t FORMAT JSON": "ORDER BY in line 1: no sub-queries",
    "SELECT FROM t FORMAT JSON": "`SELECT` in line 1: a value follows it",
    "SELECT blob1, FROM t FORMAT JSON": "`,` in line 1: a value follows it",
    "SELECT sum(double1,) AS a FROM t FORMAT JSON": "`,` in line 1: a value follows it",
    "SELECT blob1 FROM t WHERE FORMAT JSON": "`WHERE` in line 1: a value follows it",
    "SELECT (blob1 FROM t FORMAT JSON": "a parenthesis is not closed",
    "SELECT blob1) FROM t FORMAT JSON": "a parenthesis is not closed",
    "SELECT count() AS n FROM t GROUP BY LIMIT 9 FORMAT JSON": "`GROUP BY` in line 1: a value follows it",
    "SELECT , blob1 FROM t FORMAT JSON": "`SELECT` in line 1: a value follows it",
    "SELECT if(, 1, 2) AS x FROM t FORMAT JSON": "`(` in line 1: a value follows it",
    "SELECT count(+) AS x FROM t FORMAT JSON": "`+` in line 1: a value follows it",
    "SELECT blob1 FROM t WHERE blob1 IN FORMAT JSON": "`IN` in line 1: a value follows it",
    "SELECT blob1 FROM t WHERE blob1 IN () FORMAT JSON": "IN of this",
    # names
    "SELECT * FROM t FORMAT JSON": "`*`: write count() without it, and name the columns",
    "SELECT count(*) AS n FROM t FORMAT JSON": "`*`: write count() without it",
    "SELECT blob21 FROM t FORMAT JSON": "column blob21: neither",
    "SELECT BLOB1 FROM t FORMAT JSON": "column BLOB1: neither",
    "SELECT double0 AS x FROM t FORMAT JSON": "column double0: neither",
    "SELECT blob1 AS x FROM t WHERE x = 'a' FORMAT JSON": "alias x: WHERE is evaluated before",
    'SELECT "blob1" FROM t FORMAT JSON': "names are not quoted",
    "SELECT `blob1` FROM t FORMAT JSON": "names are not quoted",
    "SELECT blob1 x FROM t FORMAT JSON": "alias: a selected expression gets one name",
    "SELECT sum(double1 AS x) FROM t FORMAT JSON": "alias: a selected expression gets one name",
    "SELECT blob1 AS x, blob2 AS x FROM t FORMAT JSON": "alias: a selected expression gets one name",
    "SELECT blob1 FROM täble FORMAT JSON": "VAR in line 1: a name consists of ASCII",
    "SELECT {x:UInt8} AS x FORMAT JSON": "`{`",
    "SELECT @x AS x FORMAT JSON": "`@`",
    "SELECT ? AS x FORMAT JSON": "bind parameters do not exist",
    "SELECT blob1 AS from FROM t FORMAT JSON": "AS in line 1: a name follows",
    "SELECT blob1 AS group FROM t FORMAT JSON": "AS in line 1: a name follows",
    "SELECT blob1 AS '' FROM t FORMAT JSON": "AS in line 1: a name follows",
    "SELECT blob1 AS 1 FROM t FORMAT JSON": "AS in line 1: a name follows",
    "SELECT AS blob1 host FROM t FORMAT JSON": "`SELECT` in line 1: a value follows it",
    "SELECT (blob1 x) AS y FROM t FORMAT JSON": "alias: a selected expression gets one name",
    "SELECT blob1 FROM t GROUP BY time FORMAT JSON": "column time: neither",
    "SELECT any(blob1) AS any FROM t FORMAT JSON": "function any",
    # types
    "SELECT max(blob1) AS x FROM t FORMAT JSON": "function max: it takes no String",
    "SELECT min(lower(blob1)) AS x FROM t FORMAT JSON": "function min: it takes no String",
    "SELECT blob1 AS a, max(a) AS x FROM t GROUP BY a FORMAT JSON": "function max: it takes no String",
    "SELECT sum(index1) AS x FROM t FORMAT JSON": "function sum: it takes no String",
    "SELECT avgIf(blob1, double1 > 1) AS x FROM t FORMAT JSON": "function avgIf: it takes no String",
    "SELECT if(double1 > 1, 'a', 2) AS x FROM t FORMAT JSON": "function if: its branches have different types",
    "SELECT if(double1 > 1, timestamp, 0) AS x FROM t FORMAT JSON": "different types, a number and a time",
    "SELECT if(double1 > 1, toDayOfWeek(timestamp), 'a') AS x FROM t FORMAT JSON": "types, a String and a number",
    "SELECT if(double1 > 1, COUNT(), 'a') AS x FROM t FORMAT JSON": "different types, a String and a number",
    "SELECT sum(if(double1 > 1, double1, '')) AS x FROM t FORMAT JSON": "function if: its branches have different",
    # functions
    "SELECT max() AS x FROM t FORMAT JSON": "function max: it needs an argument",
    "SELECT sumIf(double1, DISTINCT true) AS x FROM t FORMAT JSON": "DISTINCT in line 1: it comes first",
    "SELECT AND(blob1 = 'a', true) AS x FROM t FORMAT JSON": "expression: ClickHouse reads a part of it differently",
    "SELECT round(double1) AS x FROM t FORMAT JSON": "reference, or known to fail",
    "SELECT uniq(blob1) AS x FROM t FORMAT JSON": "function uniq",
    "SELECT toString(double1) AS x FROM t FORMAT JSON": "function toString",
    "SELECT url('x') AS x FORMAT JSON": "function url",
    "SELECT sleep(3) AS x FORMAT JSON": "function sleep",
    "SELECT Count() AS x FROM t FORMAT JSON": "function Count in line 1: spell it",
    "SELECT todatetime('x') AS x FORMAT JSON": "function todatetime in line 1: spell it toDateTime",
    "SELECT cast(double1 AS Int64) AS x FROM t FORMAT JSON": "function cast",
    "SELECT row_number() OVER (ORDER BY blob1) AS x FROM t FORMAT JSON": "window functions do not exist",
    "SELECT sum(double1) FILTER (WHERE double1 > 1) AS x FROM t FORMAT JSON": "FILTER",
    "SELECT extract(WEEK FROM timestamp) AS x FROM t FORMAT JSON": "unit WEEK",
    # operators
    "SELECT CASE WHEN double1 = 1 THEN 1 END AS x FROM t FORMAT JSON": "CASE does not exist, use if",
    "SELECT double1 = 1 ? 2 : 3 AS x FROM t FORMAT JSON": "`?`",
    "SELECT blob1 || blob2 AS x FROM t FORMAT JSON": "`||`",
    "SELECT double1::Int64 AS x FROM t FORMAT JSON": "`::`",
    "SELECT blob1 FROM t WHERE blob1 == 'a' FORMAT JSON": "EQ in line 1: write =",
    "SELECT blob1 FROM t WHERE blob1 IS NOT NULL FORMAT JSON": "NULL does not exist",
    "SELECT blob1 FROM t WHERE blob1 = NULL FORMAT JSON": "NULL does not exist",
    "SELECT blob1 FROM t WHERE blob1 IN u FORMAT JSON": "IN of field",
    "SELECT [1, 2] AS x FORMAT JSON": "`[`",
    "SELECT (1, 2) AS x FORMAT JSON": "TUPLE",
    "SELECT x -> 1 AS x FORMAT JSON": "`->`",
    # literals
    "SELECT 'a' 'b' AS x FORMAT JSON": "expression: ClickHouse reads a part of it differently",
    "SELECT 'a\\'b' AS x FORMAT JSON": "STRING in line 1: double every backslash",
    "SELECT 'a\\nb' AS x FORMAT JSON": "STRING in line 1: double every backslash",
    "SELECT 'abc AS x FORMAT JSON": "a quote or a comment is not closed",
    "SELECT 1e5 AS x FORMAT JSON": "NUMBER in line 1: write digits",
    "SELECT 5. AS x FORMAT JSON": "NUMBER in line 1: write digits",
    "SELECT .5 AS x FORMAT JSON": "a number needs a digit before its dot",
    "SELECT 0x1F AS x FORMAT JSON": "`HEX_STRING` in line 1: not in",
    "SELECT $$a$$ AS x FORMAT JSON": "`HEREDOC_STRING` in line 1: not in",
    "SELECT now() - INTERVAL 1 DAY AS x FORMAT JSON": "INTERVAL in line 1: write it as",
    "SELECT now() - INTERVAL '1' WEEK AS x FORMAT JSON": "unit WEEK",
    "SELECT now() - INTERVAL '1' AS x FORMAT JSON": "INTERVAL of this",
    "SELECT now() - INTERVAL '1' DAY '2' HOUR AS x FORMAT JSON": "expression: ClickHouse reads a part",
    "SELECT now() - INTERVAL '1 DAY' AS x FORMAT JSON": "INTERVAL in line 1: write it as",
    # text
    "SELECT 1 /* block */ AS x FORMAT JSON": "only spaces, line breaks and -- comments",
    "SELECT 1 # hash\n AS x FORMAT JSON": "only spaces, line breaks and -- comments",
    "SELECT 1\u00a0AS x FORMAT JSON": "only spaces, line breaks and -- comments",
    "SELECT 1 /* open": "a quote or a comment is not closed",
    "SELECT '\0' AS x FORMAT JSON": "NUL",
    "SELECT '\ud800' AS x FORMAT JSON": "not valid Unicode",
    f"SELECT '{'x' * 5_000_000}' AS x FORMAT JSON": "bytes are more than",
    f"SELECT {'(' * 20_000}1{')' * 20_000} AS x FORMAT JSON": "nested too deeply",
    f"{'SELECT a FROM (' * 4000}SELECT blob1 AS a FROM t{')' * 4000} FORMAT JSON": "nested too deeply",
    f"SELECT {'- ' * 20_000}1 AS x FORMAT JSON": "nested too deeply",
    f"SELECT {'NOT ' * 10_000}1 AS x FORMAT JSON": "nested too deeply",
    f"SELECT {'1+' * 20_000}1 AS x FORMAT JSON": "nested too deeply",
    "(" * 60_000: "only SELECT",
    "'" * 60_001: "not closed",
}


@pytest.mark.parametrize("sql", ACCEPTED)
def test_documented_dialect_is_accepted(sql: str) -> None:
    parse(sql)


@pytest.mark.parametrize(("sql", "reason"), REFUSED.items(), ids=[sql[:60] for sql in REFUSED])
def test_other_sql_is_refused_with_its_reason(sql: str, reason: str) -> None:
    with pytest.raises(DialectError) as refused:
        parse(sql)
    text = str(refused.value)
    assert reason in text
    assert len(text) < 300


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_function_of_the_reference_is_accepted(function: str) -> None:
    call = CALLS.get(function, f"{function}(blob1, double1)")
    parse(f"SELECT {call} AS x FROM t FORMAT JSON")


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_function_keeps_its_name_in_the_tree(function: str) -> None:
    call = CALLS.get(function, f"{function}(blob1, double1)")
    (node,) = (item.this for item in sqlglot.parse_one(f"SELECT {call} AS x FROM t", AnalyticsEngineSql).expressions)
    assert _call(node)[0] == (function.lower() if function.isupper() else function)


CALLS = {
    "extract": "extract(YEAR FROM timestamp)",
    "position": "position('x' IN blob1)",
    "if": "if(double1 > 1, 1, 2)",
    "IF": "IF(double1 > 1, 1, 2)",
    **{name: f"{name}(double1)" for name in ("SUM", "AVG", "MIN", "MAX")},
    **{name: f"{name}(double1, blob1 = 'a')" for name in ("sumIf", "avgIf")},
    "quantileWeighted": "quantileWeighted(0.5, double1, _sample_interval)",
    "quantileExactWeighted": "quantileExactWeighted(0.5)(double1, _sample_interval)",
    "toStartOfInterval": "toStartOfInterval(timestamp, INTERVAL '5' MINUTE)",
    **{name: f"{name}()" for name in ("count", "COUNT", "now", "NOW", "today")},
    **{name: f"{name}(double1)" for name in ("bitCount", "bitNot", "log", "ln", "floor", "ceil", "bin", "hex", "sum")},
    **{name: f"{name}(double1)" for name in ("avg", "min", "max", "countIf", "topK", "first_value", "last_value")},
    **{
        name: f"{name}(blob1)"
        for name in FUNCTIONS
        if name.startswith(("length", "empty", "lower", "upper", "to"))
        and name not in {"topKWeighted", "toStartOfInterval"}
    },
}


_KEYWORDS = """all any array date day desktop end every final first format index json key last left name rank right row
rows set source table text time top total type using values window year"""
KEYWORDS = _KEYWORDS.split()


@pytest.mark.parametrize("word", KEYWORDS)
def test_clickhouse_keyword_is_accepted_as_alias_and_dataset(word: str) -> None:
    parse(f"SELECT blob1 AS {word} FROM t FORMAT JSON")
    parse(
        f"SELECT blob1 AS {word}, count() AS n FROM t GROUP BY {word} HAVING {word} != 'x' AND n > 1 "
        f"ORDER BY {word} DESC, n LIMIT 3 FORMAT JSON"
    )
    parse(f"SELECT count() AS n, blob1 AS {word} FROM t GROUP BY n, {word} ORDER BY n, {word} FORMAT JSON")
    assert parse(f"SELECT count() AS n FROM {word} FORMAT JSON").dataset == word


def test_result_kind_that_cannot_be_read_is_reported() -> None:
    for expression, what in {
        "topK(3)(blob1)": "an array",
        "topKWeighted(double1, _sample_interval)": "an array",
        "toDateTime(blob1, 'America/New_York')": "a time with a time zone",
        "max(toDateTime(blob1, 'America/New_York'))": "a time with a time zone",
        "toStartOfInterval(timestamp, INTERVAL '1' DAY, 'Europe/Berlin')": "a time with a time zone",
        "toDateTime(blob1, 'Etc/UTC')": None,
        "toUnixTimestamp(toDateTime(blob1, 'America/New_York'))": None,
        "formatDateTime(timestamp, '%Y', 'America/New_York')": None,
    }.items():
        assert parse(f"SELECT {expression} AS x FROM t FORMAT JSON").unreadable == what
        assert parse(f"SELECT x FROM (SELECT {expression} AS x FROM t) FORMAT JSON").unreadable == what


def test_probes_of_a_sub_query_use_its_dataset_and_conditions() -> None:
    query = parse(
        "SELECT avg(n) AS mean FROM (SELECT blob1 AS a, count() AS n FROM t WHERE double1 > 1 GROUP BY a) WHERE n > 2 "
        "LIMIT ALL FORMAT json"
    )
    assert (query.dataset, query.columns, query.format) == ("t", ("blob1",), "JSON")
    assert query.probes == (
        "SELECT count() AS n FROM t WHERE double1 > 1 FORMAT JSON",
        "SELECT count() AS n FROM t FORMAT JSON",
    )
    assert query.text.rstrip().endswith("WHERE n > 2")


def test_refusal_is_permanent_and_quotes_no_literal() -> None:
    with pytest.raises(PermanentError) as refused:
        parse("SELECT 'secret' AS a, 'sec\\ret' AS b, * FORMAT JSON")
    assert "sec" not in str(refused.value)
    for quoted in ("$$secret$$", '"secret"', "`secret`", "x'secret'", "'secret"):
        with pytest.raises(PermanentError) as refused:
            parse(f"SELECT {quoted} AS a FORMAT JSON")
        assert "secret" not in str(refused.value)
    with pytest.raises(PermanentError) as refused:
        parse("SELECT 'secret' 'secret' FROM WHERE 'secret' FORMAT JSON")
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


_WORDS = """SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT OFFSET FORMAT JSON clicks blob1 double1 timestamp count sum if
( ) , * + - / % = <> < <= AS x n 'a' '' ' \\ 1 2.5 IN BETWEEN AND OR NOT LIKE INTERVAL DAY extract position DISTINCT
CASE WHEN END :: row end ALL all (SELECT max topK [ ] { } ; -- /* */ # . : ? @ $ ` " true ASC DESC toDateTime UNION
JOIN WITH OVER NULL IS \0 é"""
WORDS = st.sampled_from([*_WORDS.split(), "\n"])


@pytest.mark.slow
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.lists(WORDS, max_size=30).map(" ".join), st.lists(WORDS, max_size=12).map("".join), st.text()))
def test_any_text_is_accepted_or_raises_dialect_error(sql: str) -> None:
    for text in (sql, f"SELECT {sql} FORMAT JSON", f"SELECT count() AS n FROM t WHERE {sql} FORMAT JSON"):
        try:
            parse(text)
        except DialectError:
            continue
        assert len(sqlglot.parse(text, read="clickhouse")) == 1


def test_parts_of_a_query_are_as_written() -> None:
    query = parse(CLICKS)
    assert (query.dataset, query.format) == ("clicks", "JSON")
    assert query.columns == ("blob4", "_sample_interval", "double2")
    assert query.text + "FORMAT JSON\n" == CLICKS
    counts = (
        "SELECT count() AS n FROM clicks\nWHERE timestamp >= toDateTime('2026-11-15 00:00:00') "
        "AND timestamp < toDateTime('2026-11-16 00:00:00') FORMAT JSON"
    )
    assert query.probes == (counts, counts.replace("\n", " "))
    assert parse(counts).columns == ()
    assert parse("SELECT 1 AS a FORMAT JSON").probes == ()


@pytest.mark.parametrize("sql", ACCEPTED)
def test_probes_are_accepted_by_the_dialect(sql: str) -> None:
    for probe in parse(sql).probes:
        assert parse(probe).probes[0] == probe


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (datetime(2026, 11, 15, tzinfo=UTC), "toDateTime('2026-11-15 00:00:00')"),
        (datetime(2026, 11, 15, 1, tzinfo=timezone(timedelta(hours=2))), "toDateTime('2026-11-14 23:00:00')"),
        (date(2026, 11, 15), "toDateTime('2026-11-15 00:00:00')"),
        ("it's", "'it''s'"),
        ("\\", "'\\\\'"),
        ("\\'", "'\\\\'''"),
        ("%(b)s %% %s", "'%(b)s %% %s'"),
        (7, "7"),
        (-7, "(-7)"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (-1e15, "(-1000000000000000.0)"),
        (0.0, "0.0"),
        (Decimal("1.50"), "1.5"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_value_is_bound_as_literal(value: Parameter, literal: str) -> None:
    assert bind("%(a)s", {"a": value}) == literal


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (datetime(2026, 11, 15), "needs a time zone"),
        (datetime(2026, 11, 15, microsecond=1, tzinfo=UTC), "must have whole seconds"),
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), "between 1970 and 2106"),
        (datetime.max.replace(microsecond=0, tzinfo=UTC), "between 1970 and 2106"),
        (date(1900, 1, 1), "between 1970 and 2106"),
        ("secret\0", "NUL"),
        ("secret\ud800", "not valid Unicode"),
        (2**63, "64 bits"),
        (math.nan, "size is not between"),
        (-math.inf, "size is not between"),
        (1e300, "size is not between"),
        (1e-300, "size is not between"),
        (Decimal("NaN"), "size is not between"),
        (Decimal("1e400"), "size is not between"),
        (Decimal("-1e-400"), "size is not between"),
        (None, "NoneType has no literal"),
        (b"secret", "bytes has no literal"),
        (["secret"], "list has no literal"),
    ],
)
def test_value_without_literal_is_refused_and_not_quoted(value: Parameter, reason: str) -> None:
    with pytest.raises(DialectError, match=reason) as refused:
        bind("%(a)s", {"a": value})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("sql", "parameters", "reason"),
    [
        ("%(a)s", {}, "parameter a: the placeholder has no value"),
        ("1", {"a": 1, "b": 2}, "parameter a, b: the query has no placeholder for it"),
        ("-- %(a)s", {"a": 1}, "parameter a: the query has no placeholder for it"),
        ("LIKE '%(a)s'", {"a": 1}, "and no placeholder"),
        ("LIKE 'a%'", {}, "inside quotes write %%"),
        ("5 % 2", {}, "write %% for a percent sign"),
        ("%s", {"a": 1}, "write %% for a percent sign"),
        ("'open %(a)s", {"a": 1}, "a quote is not closed"),
        ("'" * 1_000_001, {}, "a quote is not closed"),
    ],
)
def test_template_that_cannot_be_bound_is_refused(sql: str, parameters: dict[str, Parameter], reason: str) -> None:
    with pytest.raises(DialectError, match=reason):
        bind(sql, parameters)


def test_double_percent_is_bound_as_one_and_comments_are_unchanged() -> None:
    bound = bind("SELECT 5 %% 2 AS x -- 50 % of it's %(a)s\nFROM t WHERE blob1 LIKE 'a%%' FORMAT JSON", {})
    assert bound == "SELECT 5 % 2 AS x -- 50 % of it's %(a)s\nFROM t WHERE blob1 LIKE 'a%' FORMAT JSON"
    parse(bound)


def test_bounds_of_the_window_may_be_unused() -> None:
    bounds = {"data_interval_start": datetime(2026, 11, 15, tzinfo=UTC), "data_interval_end": date(2026, 11, 16)}
    assert bind("%(data_interval_end)s -- %(data_interval_start)s", bounds) == (
        "toDateTime('2026-11-16 00:00:00') -- %(data_interval_start)s"
    )


def test_negative_number_after_a_minus_is_no_comment() -> None:
    bound = bind("SELECT double1 -%(a)s AS x FROM t FORMAT JSON", {"a": -7})
    assert bound == "SELECT double1 -(-7) AS x FROM t FORMAT JSON"
    parse(bound)


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Evaluates an expression of the dialect in ClickHouse."""
    with running(tmp_path_factory.mktemp("literals")) as control, requests.Session() as session:
        session.headers["Authorization"] = "Bearer any"
        url = f"{control.url}/client/v4/accounts/any/analytics_engine/sql"

        def evaluate(expression: str) -> Any:
            response = session.post(url, f"SELECT {expression} AS value FORMAT JSON".encode(), timeout=60)
            assert response.ok, response.text
            return response.json()["data"][0]["value"]

        yield evaluate


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
hostile = st.text(
    st.sampled_from(["'", "\\", "-", "/", "*", "#", "\n", "%", "(", ")", "s", "a", "n", "0", "x", "é", "🦊"])
)


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts | hostile)
def test_bound_text_is_read_unchanged_by_parser_and_clickhouse(text: str, clickhouse: Callable[[str], Any]) -> None:
    literal = bind("%(text)s", {"text": text})
    assert sqlglot.parse_one(literal, read="clickhouse") == sqlglot.exp.Literal.string(text)
    assert literal[1:-1].replace("''", "").count("'") == 0  # ends there in standard SQL too
    parse(f"SELECT {literal} AS value FORMAT JSON")
    assert clickhouse(literal) == text


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(-(2**63), 2**63 - 1) | st.floats(1e-15, 1e15) | st.floats(-1e15, -1e-15))
def test_bound_number_is_read_unchanged_by_clickhouse(number: float, clickhouse: Callable[[str], Any]) -> None:
    literal = bind("%(number)s", {"number": number})
    parse(f"SELECT {literal} AS value FORMAT JSON")
    assert type(number)(clickhouse(literal)) == number


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(time=st.datetimes(datetime(1970, 1, 1), datetime(2106, 2, 7), timezones=st.just(UTC)))
def test_bound_time_is_read_unchanged_by_clickhouse(time: datetime, clickhouse: Callable[[str], Any]) -> None:
    time = time.replace(microsecond=0)
    literal = bind("%(time)s", {"time": time})
    parse(f"SELECT {literal} AS value FORMAT JSON")
    assert clickhouse(f"toUnixTimestamp({literal})") == int(time.timestamp())


def test_dataset_has_the_documented_number_of_columns() -> None:
    assert len(DATASET_COLUMNS) == 44
