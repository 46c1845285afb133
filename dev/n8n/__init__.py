"""A stand-in for n8n's production webhooks, for the local stack and the tests.

It runs as a process of its own, ``python -m dev.n8n --port N``, answers as n8n 2.41 was recorded to answer, keeps a
list of the workflow executions it started, and reports back to the API of the KPI jobs where a workflow does. Workflows
are registered by their webhook's path. `client.N8nControl` orders failures: `boot` makes it answer like an n8n that
boots, `faults` any other response; `dev.n8n.faults` has those that n8n and its proxies are known for.

What it does not simulate:

- Workflows: an execution is a row in a list. Nodes, credentials, queue mode and n8n's own time limits are not there.
- Test webhooks (``/webhook-test/…``), forms, waiting nodes, and the UI.
- ``Idempotency-Key``: n8n ignores it as well, unless a workflow checks it (``once.json``); the stand-in only notes it.
- TLS, and a proxy in front of it; what those answer can be ordered as a fault.

A real n8n replaces it by a connection: `docs/products/n8n.md` says how to start one. The workflows in this folder
(``respond.json``, ``report_back.json``, ``once.json``) can be imported into it.
"""
