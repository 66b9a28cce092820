"""When the pipelines run and in what order; each file's docstring is its page in the Airflow UI."""
