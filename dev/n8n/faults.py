"""Responses of n8n, and of proxies in front of it, that tests and drills can order from the stand-in."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from dev.stand_in.faults import Fault

_HTML: Final = {"Content-Type": "text/html; charset=utf-8"}
_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}

STARTING = Fault(status=HTTPStatus.OK, body="n8n is starting up. Please wait", headers=_HTML)
"""What n8n 2.41 answers to every path and method until its migrations are done."""

UNREGISTERED = Fault(
    status=HTTPStatus.NOT_FOUND,
    body='<!DOCTYPE html>\n<html lang="en"><head><title>Error</title></head>'
    "<body><pre>Cannot POST /webhook</pre></body></html>",
    headers=_HTML,
)
"""What n8n answers after that, until its webhooks are registered."""

REPUBLISHING = Fault(
    status=HTTPStatus.NOT_FOUND,
    body='{"code":404,"message":"The requested webhook \\"POST w\\" is not registered."}',
    headers=_JSON,
)
"""What n8n answers for about a second while a workflow is published again."""

PROXY_RESTARTING = Fault(status=HTTPStatus.NOT_FOUND, body="404 page not found\n")
"""What a proxy such as Traefik answers while it does not know n8n yet, in plain text."""

PROBLEM = Fault(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    body='{"code":0,"message":"There was a problem executing the workflow"}',
    headers=_JSON,
)
"""What n8n answers when it loses track of an execution, which may have been started."""
