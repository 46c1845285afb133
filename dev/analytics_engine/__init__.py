"""A stand-in for the SQL API of Cloudflare's Workers Analytics Engine, for the local stack and the tests.

It executes queries: this repository checks their dialect, and chDB, an embedded ClickHouse, runs them on events in a
folder. It is a process of its own, ``python -m dev.analytics_engine --data DIR --port N``. Its HTTP is the API's:
address, bearer token, formats, 64-bit integers as text, statuses and texts of errors. `client.AnalyticsEngineControl`
makes it fail on demand.

It does not simulate:

- Cloudflare's own SQL parser. The 422 texts about the dialect are this repository's, and types of results are
  ClickHouse's. ``length`` and ``substring`` count bytes here, characters there. The small chDB returns 422 for
  ``quantileExactWeighted``, ``lowerUTF8`` and ``upperUTF8``, which it does not have.
- Sampling on read (adaptive bit rate), and the rate of sampling on write. Here a request to `Store.write` sets that
  rate; without it, nothing is sampled.
- The delay between write and read (there up to minutes), the limits of a data point (16 kB of blobs, 96 bytes of
  index), the retention of three months, the rate limit, and the limits of memory and result size.
- Accounts and permissions beyond one account and one token.
"""
