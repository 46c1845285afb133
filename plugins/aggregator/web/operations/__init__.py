"""The Operations page: its files, and the read-only API from which it reads the products' tables."""
