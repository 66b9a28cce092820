"""Values and rules of the archive: no network, no files, no Airflow."""
