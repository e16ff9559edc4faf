"""The status page shows the trust record, as the watcher reads it."""

from alembic import op

revision = "0011"
down_revision = "0010"

_GRANTS = """
grant usage on schema serving to headwater_watcher;
grant select on serving.data_status to headwater_watcher;
"""


def upgrade() -> None:
    op.execute(_GRANTS)
