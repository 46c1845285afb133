"""Warm-up of new sending domains."""
