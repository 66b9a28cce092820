"""The program: archives Webex Contact Center. It never imports Airflow."""
