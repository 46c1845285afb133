"""Telemetry: daily rollups of events."""
