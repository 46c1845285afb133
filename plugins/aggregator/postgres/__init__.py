"""PostgreSQL: hook, sessions, upserts, migrations, and the operator that upserts a query."""
