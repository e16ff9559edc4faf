"""The local stack: PostgreSQL, a Prefect server and a worker on loopback, without Docker and without an account.

All state lives in one folder (`layout.py`). `stack.LocalStack` is the way in; the other modules are its parts.
"""
