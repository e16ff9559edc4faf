"""The dbt project on Spark: raw from the lake, then dbt. Runs in an environment of its own (`make spark`)."""
