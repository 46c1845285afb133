"""Alerts about late and failed runs, stale data, dead letters, and disabled tasks."""
