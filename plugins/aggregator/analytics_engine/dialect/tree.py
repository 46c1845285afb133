"""Syntax tree of a query: its shape, the names it uses, and the kinds of its expressions.

sqlglot's ClickHouse parser accepts more than the dialect, and gives some text another meaning. These checks refuse it:

| Written | Reason |
|---|---|
| ``SELECT *``, ``SELECT DISTINCT blob1``, ``(1, 2)`` | this form is not in the reference |
| ``SELECT blob1 x``, two aliases of one name | an expression has one alias of its own, with AS |
| ``'a' 'b'``, ``ORDER BY n NULLS FIRST`` | the tree has a name more or fewer than the text has words |
| ``blob21``, ``ORDER BY blob1``, ``WHERE alias = 1`` | the name is not known there |
| ``max(blob1)`` | the kind of the argument (`functions`) |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from aggregator.analytics_engine.dialect.functions import DATASET_KINDS, Kinds, kind_of, problem_with_kinds
from aggregator.analytics_engine.errors import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregator.analytics_engine.dialect.clauses import Level

_INTERVAL_UNITS = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})
"""Units of ``INTERVAL`` and ``extract`` (Cloudflare: Literals)."""

_PLAIN_NODES = frozenset(
    {
        *(exp.And, exp.Or, exp.Not, exp.Neg, exp.Paren, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod),
        *(exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Between, exp.Like, exp.ILike),
        *(exp.From, exp.Table, exp.Where, exp.Having, exp.Limit, exp.Offset),
        *(exp.Identifier, exp.Literal, exp.Boolean, exp.Var),
    }
)
"""Nodes that are accepted in every form, besides functions."""

_FORMS: dict[type[exp.Expr], frozenset[str]] = {
    exp.Alias: frozenset({"this", "alias"}),
    exp.Column: frozenset({"this"}),
    exp.Distinct: frozenset({"expressions"}),
    exp.Group: frozenset({"expressions"}),
    exp.In: frozenset({"this", "expressions"}),
    exp.Interval: frozenset({"this", "unit"}),
    exp.Order: frozenset({"expressions"}),
    exp.Ordered: frozenset({"this", "desc", "nulls_first"}),
    exp.Subquery: frozenset({"this"}),
    exp.Select: frozenset({"expressions", "from_", "where", "group", "having", "order", "limit", "offset"}),
}
"""Nodes with more forms in ClickHouse, and the parts of the accepted form: ``x IN ('a')``, but not ``x IN y``."""

_COMPLETE = frozenset({exp.In, exp.Interval})
"""Nodes that have all these parts."""


def check_selects(selects: Sequence[exp.Select], levels: Sequence[Level]) -> Kinds:
    """Check a query, its innermost sub-query first. Return the kind of each selected expression, by name.

    Raises:
        DialectError: A form, a name or a kind is not in the dialect.
    """
    kinds = DATASET_KINDS
    for select, level in reversed([*zip(selects, levels, strict=True)]):
        known = _check_level(select, [token for clause in level.values() for token in clause], kinds)
        kinds = {item.alias_or_name: kind_of(item.unalias(), known) for item in select.expressions}
    return kinds


def nested_selects(select: exp.Select, depth: int) -> list[exp.Select]:
    """The query, the sub-query in its FROM, and so on. There are ``depth``."""
    selects = [select]
    while (source := selects[-1].args.get("from_")) and isinstance(source.this, exp.Subquery):
        if not isinstance(source.this.this, exp.Select):
            break
        selects.append(source.this.this)
    if len(selects) != depth:
        raise refusal("FROM", "a sub-query is one SELECT")
    return selects


def dataset_columns(select: exp.Select) -> tuple[str, ...]:
    """Columns (not aliases) that the SELECT clause of an innermost query names, in order of appearance."""
    named = [column.name for item in select.expressions for column in item.find_all(exp.Column, bfs=False)]
    return tuple(dict.fromkeys(name for name in named if name in DATASET_KINDS))


def time_conditions(select: exp.Select) -> str:
    """The WHERE clause of an innermost query as SQL, without conditions on other columns than ``timestamp``."""
    where = select.args.get("where")
    if where is None:
        return ""
    conditions = where.this.flatten() if isinstance(where.this, exp.And) else [where.this]
    kept = [part for part in conditions if {column.name for column in part.find_all(exp.Column)} == {"timestamp"}]
    return exp.Where(this=exp.and_(*kept)).sql(dialect="clickhouse") if kept else ""


def _check_level(select: exp.Select, tokens: Sequence[Token], kinds: Kinds) -> Kinds:
    """Check one SELECT without its sub-query; return the kinds of the columns and aliases that it may name."""
    nodes = [*select.walk(prune=lambda node: isinstance(node, exp.Subquery))]
    aliased = [node for node in nodes if isinstance(node, exp.Alias)]
    aliases = {node.alias for node in aliased if node.parent is select}
    if not len(aliases) == len(aliased) == sum(token.token_type is TokenType.ALIAS for token in tokens):
        raise refusal("alias", "a selected expression gets one name of its own, with AS")
    for node in nodes:
        _check_form(node)
        _check_names(node, aliases, kinds)
    if sum(map(_is_word, nodes)) != sum(token.token_type in {TokenType.VAR, TokenType.INTERVAL} for token in tokens):
        raise refusal("expression", "ClickHouse reads a part of it differently than the reference describes")
    known = dict(kinds)
    for item in aliased:
        known.setdefault(item.alias, kind_of(item.this, known))
    for node in nodes:
        if problem := problem_with_kinds(node, known):
            raise refusal(*problem)
    return known


def _is_word(node: exp.Expr) -> bool:
    return _is_function(node) or isinstance(node, exp.Identifier | exp.Interval) or _is_unit(node)


def _is_unit(node: exp.Expr) -> bool:
    return isinstance(node, exp.Var) and isinstance(node.parent, exp.Interval | exp.Extract)


def _is_function(node: exp.Expr) -> bool:
    return isinstance(node, exp.Func) and not isinstance(node, exp.Connector)


def _check_form(node: exp.Expr) -> None:
    if isinstance(node, exp.Star):
        raise refusal("`*`", "write count() without it, and name the columns")
    if form := _FORMS.get(type(node)):
        parts = {name for name, part in node.args.items() if part}
        if parts - form or (type(node) in _COMPLETE and parts != form):
            raise refusal(f"{node.key.upper()} of {', '.join(sorted(parts))}", "not in Cloudflare's SQL reference")
    elif type(node) not in _PLAIN_NODES and not _is_function(node):
        raise refusal(node.key.upper(), "not in Cloudflare's SQL reference")


def _check_names(node: exp.Expr, aliases: set[str], kinds: Kinds) -> None:
    match node:
        case exp.Column() if node.name not in kinds:
            if node.name not in aliases:
                raise refusal(f"column {node.name[:40]}", "neither a column of its source nor an alias of this query")
            if node.find_ancestor(exp.Where):
                raise refusal(f"alias {node.name[:40]}", "WHERE is evaluated before aliases, name the column")
        case exp.Var() if _is_unit(node):
            if node.name.upper() not in _INTERVAL_UNITS:
                raise refusal(f"unit {node.name[:40]}", f"known are {', '.join(sorted(_INTERVAL_UNITS))}")
        case exp.Ordered() if not (isinstance(node.this, exp.Column) and node.this.name in aliases):
            raise refusal("ORDER BY", "order by an alias that the query selects, a column's own name fails")
