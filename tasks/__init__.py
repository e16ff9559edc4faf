"""Thin Prefect tasks over the connectors and dbt: names, retries, logs. The work itself is in `connectors`."""
