"""The local stack: everything `make` starts on a laptop."""
