"""What the plugin adds to Airflow's API server."""
