"""Read any database that SQLAlchemy has a dialect for: row by row, each value exact or in quarantine."""

from connectors.sql.source import SqlSource, SqlStream

__all__ = ["SqlSource", "SqlStream"]
