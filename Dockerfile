# Airflow with the repository's DAGs, from the same lock as everywhere else; configured by docker-compose.yaml.
FROM python:3.13-slim-bookworm

ENV AIRFLOW_HOME=/opt/airflow \
    PATH=/opt/airflow/bin:$PATH \
    PYTHONPATH=/opt/airflow/plugins \
    PYTHONUNBUFFERED=1

# Only the volumes can be written: the root file system may be read-only.
RUN useradd --uid 50000 --home-dir /opt/airflow --no-create-home airflow \
    && install --directory --owner airflow --group airflow /opt/airflow/accounts /opt/airflow/logs

# First, so that a change of the code does not install the packages again.
COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --requirement /tmp/requirements.lock

WORKDIR /opt/airflow
COPY deploy/image bin
COPY dags dags
COPY plugins plugins
COPY include include
RUN python -m compileall -q dags plugins

USER airflow
