"""The custom operators that the DAGs are wired from."""
