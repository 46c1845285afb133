"""Daily rollups of telemetry events."""
