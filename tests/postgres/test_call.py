"""Calls of database functions by name."""

from __future__ import annotations

import psycopg
import pytest

from aggregator.postgres.functions import call


@pytest.fixture
def shop(connection: psycopg.Connection) -> psycopg.Connection:
    connection.execute("""
        create schema shop;
        create function shop.prices(p_names text[], "p factor" numeric default 2)
        returns table (name text, price numeric) language sql
        as 'select name, length(name) * "p factor" from unnest(p_names) as name';
    """)
    return connection


def test_named_arguments_are_passed_and_defaults_apply(shop: psycopg.Connection) -> None:
    assert call(shop, "shop.prices", p_names=["a", "%s"]) == [("a", 2), ("%s", 4)]
    assert call(shop.cursor(), "shop.prices", **{"p_names": ["a"], "p factor": 3}) == [("a", 3)]


def test_scalar_function_returns_one_value(shop: psycopg.Connection) -> None:
    assert call(shop, "pg_catalog.pi") == [(pytest.approx(3.14159, abs=0.001),)]


def test_unknown_argument_is_refused(shop: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedFunction):
        call(shop, "shop.prices", names=["a"])
