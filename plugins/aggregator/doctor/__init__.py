"""Checks of an installation: everything that the DAGs need, from where they run.

``python -m aggregator.doctor`` changes nothing, starts no workflow and, without ``--send-test-alert``, sends no alert.
A check is a function that yields rows. Checks derive from the catalog, so a new DAG is checked like the others.
"""
