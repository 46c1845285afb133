"""The analytics suite: what its six DAGs share."""
