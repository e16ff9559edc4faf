"""What talks to the outside: sources to read from, destinations to land and load into.

Nothing in here imports Prefect or dbt: a connector is plain Python that a test, a notebook or a flow can call alike.
"""
