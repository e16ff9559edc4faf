"""A BI tool on the serving schema, as an option: Apache Superset, provisioned from files.

Superset lives in a virtual environment of its own, since its pins contradict ours: `service` is run by ours,
`provision` and `superset_config` by its.
"""
