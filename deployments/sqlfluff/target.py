"""dbt's `target` for sqlfluff."""

type = "postgres"  # noqa: A001 - the name that models ask for
