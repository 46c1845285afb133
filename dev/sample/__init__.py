"""Sample data of the local stack, deterministic by day."""
