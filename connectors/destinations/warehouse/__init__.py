"""The warehouse, PostgreSQL 16 or later: the ledger (`ops`), raw, and what is published.

`connection` opens it, `migrations` keeps the `ops` schema up to date, `ledger` knows loads, leases and watermarks,
`attempt` takes rows in, `commit` makes them count, `publish` shows them to readers.
"""
