"""A stand-in for the SQL API of Cloudflare's Workers Analytics Engine, for the local stack and the tests.

It really executes: the dialect gate of this repository in front of chDB, an embedded ClickHouse, over events that are
kept in a folder. It runs as a process of its own, ``python -m dev.analytics_engine --data DIR --port N``, and speaks
the API's HTTP: address, bearer token, formats, 64-bit integers as text, statuses and texts of errors. It can be told to
fail (`client.AnalyticsEngineControl`).

What it does not simulate:

- Cloudflare's own SQL front: the gate stands in for it, and its 422 texts are ours. Types of results are ClickHouse's.
  ``length`` and ``substring`` count bytes here, characters there. The small chDB lacks ``quantileExactWeighted``,
  ``lowerUTF8`` and ``upperUTF8``, which answer 422.
- Sampling when read (adaptive bit rate), and the sampling rate when written: here it is what `Store.write` is asked
  for, counted per request. Without asking nothing is sampled.
- The delay between writing and reading (there: up to minutes), the limits of a data point (16 kB of blobs, 96 bytes of
  index), the retention of three months, the rate limit and the limits of memory and result size.
- Accounts and permissions beyond one account and one token.
"""
