"""The analytics suite: shared code of its six DAGs."""
