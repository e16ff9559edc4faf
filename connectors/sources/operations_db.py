"""The operational PostgreSQL database: the fleet, the airports, the airlines."""

from connectors.connections import Database
from connectors.model import Cursor, Deletes, WriteDisposition
from connectors.postgres import PostgresSource, TableStream

operations_db = PostgresSource(
    name="operations_db",
    database=Database("operations_db"),
    streams=(
        TableStream(name="planes", primary_key=("tailnum",), cursor=Cursor("updated_at"), deletes=Deletes(limit=0.05)),
        TableStream(name="airports", primary_key=("faa",), cursor=Cursor("updated_at"), deletes=Deletes(limit=0.05)),
        # Sixteen rows that say nothing of when they changed: read whole.
        TableStream(name="airlines", primary_key=("carrier",), write=WriteDisposition.REPLACE),
    ),
)
