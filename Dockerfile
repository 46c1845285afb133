# Airflow with the repository's DAGs, from the same lock as everywhere else; configured by docker-compose.yaml.
FROM python:3.13-slim-bookworm

ENV AIRFLOW_HOME=/opt/airflow \
    PYTHONPATH=/opt/airflow/plugins \
    PYTHONUNBUFFERED=1

RUN useradd --uid 50000 --home-dir /opt/airflow --create-home airflow \
    && install --directory --owner airflow /opt/airflow/logs

# First, so that a change of the code does not install the packages again.
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --requirement /tmp/requirements.lock

WORKDIR /opt/airflow
COPY dags dags
COPY plugins plugins
COPY include include

USER airflow
