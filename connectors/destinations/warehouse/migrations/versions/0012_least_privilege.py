"""PUBLIC may do nothing, and no role more than docs/roles.md says, also in a warehouse that was made otherwise."""

from alembic import op

revision = "0012"
down_revision = "0011"

_GRANTS = """
do $$
declare
    warehouse text := quote_ident(current_database());
begin
    -- A database that somebody made without the second half of docs/roles.md lets everybody in.
    execute 'revoke all on database ' || warehouse || ' from public';
    execute 'grant connect on database ' || warehouse || ' to headwater_loader, headwater_transformer,'
        ' headwater_publisher, headwater_watcher, headwater_reader';
    -- The publisher's schemas are made here; the local stack used to let it make others.
    execute 'revoke create on database ' || warehouse || ' from headwater_publisher';
end
$$;

revoke all on schema public from public;
alter default privileges revoke execute on functions from public;
"""


def upgrade() -> None:
    op.execute(_GRANTS)
