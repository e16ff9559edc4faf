"""How many requests a load has made, for plans to tell how many a backfill will make."""

from alembic import op

revision = "0004"
down_revision = "0003"

_CHANGES = """
alter table ops.loads add column requests bigint check (requests >= 0);
comment on column ops.loads.requests is
    'Requests to the source that the load was read by, tries that failed included; null where none are counted';
"""


def upgrade() -> None:
    op.execute(_CHANGES)
