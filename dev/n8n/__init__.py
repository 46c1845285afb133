"""A stand-in for n8n's production webhooks, for the local stack and the tests.

It runs as a separate process, ``python -m dev.n8n --port N``. It returns responses that were recorded on n8n 2.41,
lists the workflow executions it started, and reports to the KPI API if a workflow does. Workflows are registered by the
path of their webhook. `client.N8nControl` sets failures: `boot` simulates the startup of n8n, and `faults` any other
response. `dev.n8n.faults` has the known responses of n8n and its proxies.

It does not simulate:

- Workflows: an execution is an entry in a list. There are no nodes, credentials, queue mode or time limits.
- Test webhooks (``/webhook-test/…``), forms, wait nodes and the UI.
- ``Idempotency-Key``: n8n ignores it unless a workflow checks it (``once.json``). The stand-in only records it.
- TLS and proxies. Set their responses as faults.

`docs/products/n8n.md` describes how to use a real n8n instead. The workflows in this directory (``respond.json``,
``report_back.json``, ``once.json``) can be imported into it.
"""
