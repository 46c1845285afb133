"""The response rules: one case for each rule, and no rule that another one hides."""

from __future__ import annotations

from datetime import timedelta

import pytest

from aggregator.n8n.errors import N8nNotRegisteredError, N8nRefusedError, N8nUnavailableError, N8nUnknownError
from aggregator.n8n.responses import RULES, STARTING_UP, Outcome, Response, check, judge

HTML, JSON, TEXT = "text/html; charset=utf-8", "application/json; charset=utf-8", "text/plain"
ORIGIN = "https://n8n.example.com"

CASES: dict[str, tuple[Response, Outcome]] = {
    "startup page": (Response(200, HTML, f"{STARTING_UP}\n"), Outcome.NOT_STARTED),
    "startup page cut short": (Response(200, HTML, "n8n is", complete=False), Outcome.UNKNOWN),
    "page of a workflow": (Response(200, HTML, "<h1>Thanks</h1>"), Outcome.DELIVERED),
    "busy": (Response(503), Outcome.NOT_STARTED),
    "Cloudflare cannot connect": (Response(521), Outcome.NOT_STARTED),
    "404 page": (Response(404, TEXT, "404 page not found"), Outcome.NOT_STARTED),
    "404 not registered": (Response(404, JSON, '{"message": "w is not registered."}'), Outcome.NOT_REGISTERED),
    "gateway timeout": (Response(504), Outcome.UNKNOWN),
    "Cloudflare timeout": (Response(524), Outcome.UNKNOWN),
    "lost execution": (
        Response(500, JSON, '{"message": "There was a problem executing the workflow"}'),
        Outcome.UNKNOWN,
    ),
    "failed workflow": (Response(500, JSON, '{"message": "Error in workflow"}'), Outcome.FAILED),
}


@pytest.mark.parametrize(("response", "outcome"), CASES.values(), ids=CASES)
def test_response_has_the_outcome_of_its_rule(response: Response, outcome: Outcome) -> None:
    assert judge(response) is outcome


def test_each_rule_decides_a_case_and_names_its_source() -> None:
    deciding = {
        next(
            (index for index, rule in enumerate(RULES) if response.status in rule.statuses and rule.matches(response)),
            None,
        )
        for response, _ in CASES.values()
    }
    assert deciding == {*range(len(RULES)), None}
    assert all(rule.source for rule in RULES)


def test_status_without_a_body_has_its_outcome() -> None:
    expected = {
        **dict.fromkeys(range(200, 300), Outcome.DELIVERED),
        **dict.fromkeys((408, 425, 429, 503, 521, 523, 525, 526, 530), Outcome.NOT_STARTED),
        **dict.fromkeys((502, 504, 520, 522, 524), Outcome.UNKNOWN),
    }
    for status in range(100, 600):
        assert judge(Response(status)) is expected.get(status, Outcome.FAILED), status


NOT_REGISTERED = '{"message": "w is not registered.", "hint": "Activate it."}'


@pytest.mark.parametrize(
    ("response", "error", "failure", "advice"),
    [
        (
            Response(503, TEXT, "Database is not ready!"),
            N8nUnavailableError,
            "n8n at https://n8n.example.com returned 503: Database is not ready!",
            "The workflow was not started. If this lasts, check that n8n is running and reachable.",
        ),
        (
            Response(404, JSON, NOT_REGISTERED),
            N8nNotRegisteredError,
            "n8n at https://n8n.example.com returned 404: w is not registered. Activate it.",
            "The workflow was not started. Publish it, and check the path and the method of its webhook.",
        ),
        (
            Response(502),
            N8nUnknownError,
            "n8n at https://n8n.example.com returned 502: no message.",
            "n8n may have started the workflow, so the request is not repeated. Check n8n's executions.",
        ),
        (
            Response(422, JSON, '{"message": "No such coin"}'),
            N8nRefusedError,
            "n8n at https://n8n.example.com returned 422: No such coin.",
            "The workflow was not started, or it failed. Fix the cause, then send the request again.",
        ),
    ],
    ids=["not started", "not registered", "unknown", "failed"],
)
def test_error_has_failure_state_and_next_step(
    response: Response, error: type[Exception], failure: str, advice: str
) -> None:
    with pytest.raises(error) as caught:
        check(response, ORIGIN, key_withheld=False)
    assert type(caught.value) is error
    assert str(caught.value) == f"{failure} {advice}"


def test_retry_after_of_the_response_is_kept() -> None:
    with pytest.raises(N8nUnavailableError) as caught:
        check(Response(429, retry_after="7"), ORIGIN, key_withheld=False)
    assert caught.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize("status", [401, 403])
def test_missing_key_is_named_only_if_it_was_withheld(status: int) -> None:
    for withheld in (True, False):
        with pytest.raises(N8nRefusedError) as caught:
            check(Response(status), ORIGIN, key_withheld=withheld)
        assert ("API key was not sent" in str(caught.value)) is withheld
