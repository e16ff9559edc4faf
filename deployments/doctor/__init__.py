"""What `headwater doctor` looks at: whether this installation can work, and whether it is safe.

`examination` runs checks beside each other within their deadlines; `settings`, `warehouse`, `landing`, `prefect_server`
and `secrecy` are the checks. Nothing is changed by any of them, but for one small object of the landing that is written
and deleted.
"""
