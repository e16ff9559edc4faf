"""Backups of the warehouse and the way back, by PostgreSQL's own pg_dump and pg_restore.

`parts` says what each role owns, `programs` runs PostgreSQL's tools, `store` keeps backups, `backup` makes one,
`copying` puts one into an empty database, `restore` makes a warehouse of it that can go on, `check` proves one.
"""
