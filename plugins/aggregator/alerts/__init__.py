"""What somebody on call is told: late and failed runs, stale data, dead letters, disabled tasks (spec: alerts)."""
