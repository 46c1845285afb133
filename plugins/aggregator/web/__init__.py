"""The HTTP API of the plugin, which Airflow's API server mounts."""
