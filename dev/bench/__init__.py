"""Benchmarks that compare our code with alternatives in one run. Each checks that all alternatives store equal rows."""
