"""The steps of each job; one module for each DAG, of the same name."""
