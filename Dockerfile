# One image for every component of docker-compose.yaml: the environment of `make env`, with workers added.
FROM python:3.11-slim-bookworm

RUN useradd --uid 50000 --gid 0 --create-home airflow \
 && mkdir -p /opt/airflow/logs \
 && chown -R airflow:0 /opt/airflow

WORKDIR /opt/archive
COPY requirements-uv.txt requirements-celery.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements-uv.txt \
 && uv pip install --system --no-cache --require-hashes -r requirements-celery.txt

COPY pyproject.toml LICENSE README.md ./
COPY dags dags
COPY plugins plugins
COPY include include
# Editable: the import path of a module is its path in the project, here as everywhere.
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

ENV AIRFLOW_HOME=/opt/airflow \
    PYTHONPATH=/opt/archive \
    PYTHONUNBUFFERED=1
USER airflow
ENTRYPOINT ["airflow"]
