"""How Airflow lends its connections, variables, failures and parameters to the program."""
