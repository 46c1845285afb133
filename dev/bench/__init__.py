"""Measurements beside peers: all ways in one run, interleaved, and checked to store the same rows."""
