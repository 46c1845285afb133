"""Shared parts of the stand-ins for external services: server, control client and faults."""
