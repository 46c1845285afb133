"""The warm-up of new sending domains."""
