"""Read PostgreSQL by binary COPY: rows go from socket to landing without being parsed, every type bit for bit."""

from connectors.postgres.source import PostgresSource, TableStream

__all__ = ["PostgresSource", "TableStream"]
