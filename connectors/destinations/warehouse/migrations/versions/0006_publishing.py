"""Publishing by group, in proportion to what changed, and back again; the trust record."""

from alembic import op

revision = "0006"
down_revision = "0005"

_SCHEMAS = """
create schema changes;
comment on schema changes is 'Keys of rows that were written to incremental marts since they were last published';
create schema undo;
comment on schema undo is 'What the latest generations of serving have replaced: what a rollback puts back';
revoke all on schema changes, undo from public;
grant usage, create on schema changes to headwater_transformer;
grant usage on schema changes to headwater_publisher;
grant usage, create on schema undo to headwater_publisher;

create function ops.note_changes() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
-- Arguments: the table to note in, then the key's columns.
declare
    keys text := (select string_agg(format('%I', name), ', ') from unnest(tg_argv[1:]) name);
begin
    if tg_op <> 'INSERT' then
        execute format('insert into %s (%s) select %s from old_rows', tg_argv[0], keys, keys);
    end if;
    if tg_op <> 'DELETE' then
        execute format('insert into %s (%s) select %s from new_rows', tg_argv[0], keys, keys);
    end if;
    return null;
exception when others then
    -- The key is not what it was. That something changed is noted all the same, as a row without a key.
    execute format('insert into %s default values', tg_argv[0]);
    return null;
end
$$;
comment on function ops.note_changes is 'Trigger of incremental marts: notes the keys of the rows that were written';
revoke all on function ops.note_changes from public;
grant execute on function ops.note_changes to headwater_transformer;
"""

_TABLES = """
create table ops.published_groups (
    generation bigint not null references ops.publishes,
    mart_group text not null,
    base bigint references ops.publishes,
    is_undoable boolean not null default true,
    undone_at timestamptz,
    undone_by text,
    primary key (generation, mart_group)
);
comment on table ops.published_groups is 'The groups of marts that each generation moved';
comment on column ops.published_groups.base is 'The generation that the group was of before; null for its first';
comment on column ops.published_groups.is_undoable is 'Whether what it replaced is still kept';
create index on ops.published_groups (mart_group, generation desc);

alter table ops.published_marts
    add column mart_group text,
    add column how text not null default 'rows' check (how in ('rows', 'anew', 'gone')),
    add column undo_table text,
    add column undo_rows bigint not null default 0;
comment on column ops.published_marts.how is
    'rows: those that differed were written; anew: the mart is new, or has a new shape; gone: it is no longer served';
comment on column ops.published_marts.undo_table is
    'In schema undo: the rows that were replaced, or (anew, gone) the whole table; null: nothing, or it is not kept';

create table ops.published_sources (
    generation bigint not null references ops.publishes,
    mart text not null,
    source text not null,
    stream text not null,
    as_of timestamptz,
    late_at timestamptz,
    stale_at timestamptz,
    primary key (generation, mart, source, stream)
);
comment on table ops.published_sources is 'The streams behind each mart, as they were when its build began';
comment on column ops.published_sources.as_of is 'Up to when raw was complete; null if it never was';
comment on column ops.published_sources.late_at is 'From when on this is late, by the warn_after of its freshness';
comment on column ops.published_sources.stale_at is 'From when on this is stale, by the error_after of its freshness';

create table ops.serving_groups (
    mart_group text primary key,
    generation bigint references ops.publishes,
    held_back_since timestamptz,
    held_back_why text,
    hold_since timestamptz,
    hold_by text,
    hold_why text,
    check ((held_back_since is null) = (held_back_why is null)),
    check ((hold_since is null) = (hold_why is null))
);
comment on table ops.serving_groups is 'Which generation of each group of marts is served, and what keeps it there';
comment on column ops.serving_groups.held_back_why is 'Why the last build did not move it; null if it did';
comment on column ops.serving_groups.hold_why is 'Why no build may move it, until it is released; null if any may';

create table ops.serving_marts (
    mart text primary key,
    mart_group text not null references ops.serving_groups,
    generation bigint references ops.publishes,
    rows bigint,
    followed text,
    tests_passed integer not null default 0,
    tests_failed integer not null default 0,
    tests_warned integer not null default 0,
    invocation_id text
);
comment on table ops.serving_marts is 'Each mart as it is served, and what the last build said of it';
comment on column ops.serving_marts.followed is
    'The table of dbt that it was taken from, and the triggers that note its changes; null if none do';

grant select on ops.published_groups, ops.published_sources, ops.serving_groups, ops.serving_marts
    to headwater_loader, headwater_transformer, headwater_publisher;
grant insert, update on ops.published_groups to headwater_publisher;
grant update (undo_table, undo_rows) on ops.published_marts to headwater_publisher;
grant insert, delete on ops.published_sources to headwater_publisher;
grant insert, update, delete on ops.serving_groups, ops.serving_marts to headwater_publisher;
"""

_TRUST_RECORD = """
drop view if exists serving.data_status;
create view serving.data_status as
select
    m.mart,
    m.mart_group,
    m.generation,
    p.published_at,
    m.rows,
    s.data_as_of,
    m.tests_passed,
    m.tests_failed,
    m.tests_warned,
    s.quarantined_rows,
    case
        when g.hold_since is not null or g.held_back_since is not null or m.generation is null then 'held back'
        when s.stale is not null then 'stale'
        when s.late is not null then 'late'
        else 'fresh'
    end as status,
    concat_ws(
        ' ',
        'On hold since ' || to_char(g.hold_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') || ', by '
            || coalesce(g.hold_by, 'somebody') || ': ' || g.hold_why || '.',
        'Held back since ' || to_char(g.held_back_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') || ': '
            || g.held_back_why || '.',
        'Stale: ' || s.stale || '.',
        'Late: ' || s.late || '.',
        'Never loaded: ' || s.never || '.'
    ) as why
from ops.serving_marts m
join ops.serving_groups g using (mart_group)
left join ops.publishes p on p.generation = m.generation
cross join lateral (
    select
        case when count(*) = count(as_of) then min(as_of) end as data_as_of,
        coalesce(sum(q.rows), 0)::bigint as quarantined_rows,
        string_agg(name || known, ', ' order by name) filter (where stale_at <= now()) as stale,
        string_agg(name || known, ', ' order by name)
            filter (where late_at <= now() and (stale_at is null or stale_at > now())) as late,
        string_agg(name, ', ' order by name) filter (where as_of is null) as never
    from ops.published_sources
    cross join lateral (
        select
            source || '.' || stream as name,
            coalesce(' is known up to ' || to_char(as_of at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), '') as known
    ) n
    cross join lateral (
        select count(*) as rows
        from ops.quarantine
        where quarantine.source = published_sources.source
            and quarantine.stream = published_sources.stream
            and replayed_by is null
    ) q
    where published_sources.generation = m.generation and published_sources.mart = m.mart
) s;

grant select on serving.data_status to headwater_reader;
comment on view serving.data_status is 'How far each mart can be trusted, now';
comment on column serving.data_status.mart is 'The view in serving';
comment on column serving.data_status.mart_group is 'The marts of a group are always of one generation';
comment on column serving.data_status.generation is 'The state of serving that is shown; they are counted from 1';
comment on column serving.data_status.published_at is 'When it was published';
comment on column serving.data_status.rows is 'How many rows the mart has';
comment on column serving.data_status.data_as_of is
    'Up to when the data is complete: the least of the streams behind it; null if one of them was never loaded';
comment on column serving.data_status.tests_passed is
    'By the last build: tests of the mart and of all that it is built from';
comment on column serving.data_status.tests_failed is 'Of the same tests, those that failed';
comment on column serving.data_status.tests_warned is 'Of the same tests, those that warned';
comment on column serving.data_status.quarantined_rows is 'Rows of the streams behind it that are in quarantine now';
comment on column serving.data_status.status is
    'fresh; late or stale: a stream behind it is older than it may be, by now; held back: newer data is not shown';
comment on column serving.data_status.why is 'The reason, where it is not fresh';
"""


def upgrade() -> None:
    op.execute(_SCHEMAS)
    op.execute(_TABLES)
    op.execute(_TRUST_RECORD)
