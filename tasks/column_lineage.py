"""Where the columns of one query come from: SQL as dbt compiled it → for each column, columns of the relations read.

A pure function of the text and of the columns that the relations read are known to have. What follows from them is
said; what does not (a `*` of two tables whose columns are not known, a name that could be of either) is said to be not
known, never guessed.

The rows that a query counts are an origin too: `count(*)` comes from no column. Its rows are those of what it selects
from and joins; a left join is taken for a look-up, which adds none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.scope import Scope, build_scope

_DIALECT = "postgres"

Relation = tuple[str, str]
"""Schema and name, as PostgreSQL has them; the schema is empty where the SQL names none."""


class Kind(StrEnum):
    """What became of a value on its way."""

    PASSTHROUGH = "passthrough"
    """It is as it was, perhaps under another name."""
    EXPRESSION = "expression"
    """It was computed, from the values of one row or (window functions) of several."""
    AGGREGATE = "aggregate"
    """Several rows became one."""


_ORDER = list(Kind)


@dataclass(frozen=True, slots=True)
class Origin:
    """A column that values come from."""

    relation: Relation
    column: str | None
    """None: the rows of the relation, which were counted."""
    kind: Kind


class Remark(StrEnum):
    """What is to be said of a column that has no origins, or not all."""

    NONE = ""
    CONSTANT = "constant"
    """Written in the SQL."""
    GENERATED = "generated"
    """Made when the query runs: the time, a number in a series, what a snapshot adds."""
    NOT_KNOWN = "not known"
    """Some of it, or all, could not be followed."""


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """A column of a query's result."""

    name: str
    origins: tuple[Origin, ...] = ()
    remark: Remark = Remark.NONE


@dataclass(frozen=True, slots=True)
class QueryLineage:
    """The columns of a query's result, in their order."""

    columns: tuple[OutputColumn, ...]
    rows_of: tuple[Relation, ...] = ()
    """The relations whose rows it has, or has put together."""
    is_complete: bool = True
    """Whether these are all of its columns; not so with a `*` of a relation whose columns are not known."""


NOTHING_KNOWN = QueryLineage((), (), is_complete=False)


def query_lineage(
    sql: str, known: Mapping[Relation, Sequence[str]], *, own: Relation | None = None, names: Sequence[str] = ()
) -> QueryLineage:
    """Follow each column of a query to the relations that it reads.

    Args:
        sql: one query in PostgreSQL's words, without macros.
        known: the columns of relations, those that are known.
        own: the relation that the result is written to. An incremental model reads it; its columns come from where they
            came before, so this is no origin.
        names: of the result's columns, where they are known otherwise: for those that the SQL gives no name.

    Returns:
        What is known; `NOTHING_KNOWN` for text that is no single query.
    """
    try:
        tree = normalize_identifiers(sqlglot.parse_one(sql, dialect=_DIALECT), dialect=_DIALECT)
        root = build_scope(tree)
        if root is None:
            return NOTHING_KNOWN
        tracer = _Tracer(root, known, own)
        outputs = tracer.outputs(root)
        if outputs is None:
            return QueryLineage(
                tuple(tracer.column(root, name) for name in names), tracer.rows_of(root), is_complete=bool(names)
            )
        found = [tracer.column(root, name) for name in outputs]
        if len(names) == len(found):
            found = [OutputColumn(n, each.origins, each.remark) for n, each in zip(names, found, strict=True)]
        return QueryLineage(tuple(found), tracer.rows_of(root))
    except (SqlglotError, RecursionError):
        return NOTHING_KNOWN


@dataclass(slots=True)
class _Trace:
    """What a value comes from, while it is being followed."""

    origins: dict[tuple[Relation, str | None], Kind] = field(default_factory=dict)
    is_lost: bool = False
    """Whether something of it could not be followed."""
    is_made: bool = False
    """Whether something of it is made when the query runs."""

    def add(self, other: _Trace, kind: Kind = Kind.PASSTHROUGH) -> None:
        """Take over what another one comes from, having done something with it."""
        for key, before in other.origins.items():
            self._note(key, max(before, kind, key=_ORDER.index))
        self.is_lost |= other.is_lost
        self.is_made |= other.is_made

    def _note(self, key: tuple[Relation, str | None], kind: Kind) -> None:
        self.origins[key] = max(self.origins.get(key, kind), kind, key=_ORDER.index)

    @classmethod
    def of(cls, relation: Relation, column: str | None, kind: Kind = Kind.PASSTHROUGH) -> _Trace:
        return cls({(relation, column): kind})

    @property
    def remark(self) -> Remark:
        if self.is_lost:
            return Remark.NOT_KNOWN
        if self.origins:
            return Remark.NONE
        return Remark.GENERATED if self.is_made else Remark.CONSTANT


def _lost() -> _Trace:
    return _Trace(is_lost=True)


_Source = exp.Table | Scope
_Output = exp.Expr | tuple[_Source, str] | int
"""What a column of a query is: an expression, a column of a source, or (of a union) a place in its queries."""


class _Tracer:
    """Follows columns through the scopes of one query."""

    def __init__(self, root: Scope, known: Mapping[Relation, Sequence[str]], own: Relation | None) -> None:
        self._scopes = {id(scope.expression): scope for scope in root.traverse()}
        self._known = known
        self._own = own
        self._outputs: dict[int, dict[str, _Output] | None] = {}
        self._traced: dict[tuple[int, str], _Trace] = {}
        self._under_way: set[tuple[int, str]] = set()

    def _sources(self, scope: Scope) -> dict[str, _Source]:
        """What a query selects from, by the names it has there."""
        if isinstance(scope.expression, exp.Lateral):  # what stands before it can be named in it
            return dict(scope.sources)
        found = {name: source for name, (_, source) in scope.selected_sources.items()}
        # A recursive query knows itself as a copy of its first part, which nobody has looked into.
        return {
            name: self._scopes.get(id(source.expression), source) if isinstance(source, Scope) else source
            for name, source in found.items()
        }

    def column(self, root: Scope, name: str) -> OutputColumn:
        """A column of the result."""
        trace = self._trace(root, name)
        origins = (
            Origin(relation, column, kind)
            for (relation, column), kind in trace.origins.items()
            if relation != self._own
        )
        found = tuple(sorted(origins, key=_sorting))
        return OutputColumn(name, found, trace.remark if found or not trace.origins else Remark.NOT_KNOWN)

    def rows_of(self, root: Scope) -> tuple[Relation, ...]:
        """The relations whose rows the result has."""
        return tuple(sorted({relation for relation, _ in self._rows(root).origins if relation != self._own}))

    def outputs(self, scope: Scope) -> dict[str, _Output] | None:
        """A query's columns by name, in their order, and what each selects; None if they are not known."""
        if id(scope) not in self._outputs:
            self._outputs[id(scope)] = None  # a recursive query that asks for itself gets no answer
            self._outputs[id(scope)] = self._find_outputs(scope)
        return self._outputs[id(scope)]

    def _find_outputs(self, scope: Scope) -> dict[str, _Output] | None:
        expression = scope.expression
        found: list[tuple[str, _Output]] | None
        if isinstance(expression, exp.SetOperation):
            first = self.outputs(scope.set_operation_scopes[0])
            found = None if first is None else [(name, place) for place, name in enumerate(first)]
        elif isinstance(expression, exp.Select):
            found = self._selected(scope, expression)
        elif (inner := _inner(scope)) is not None:
            names = self._columns(inner)
            found = None if names is None else [(name, (inner, name)) for name in names]
        else:
            found = [(name, expression) for name in scope.outer_columns or ()] or None
        if found is None:
            return None
        renamed: dict[str, _Output] = {}
        for (name, output), new in zip_longest(found, scope.outer_columns or ()):
            renamed.setdefault(str(new or name), output)
        return renamed

    def _selected(self, scope: Scope, select: exp.Select) -> list[tuple[str, _Output]] | None:
        names: list[tuple[str, _Output]] = []
        merged = {name.name for join in select.args.get("joins") or () for name in join.args.get("using") or ()}
        for projection in select.expressions:
            starred = self._starred(scope, projection)
            if starred is None:
                names.append((_name(projection), projection))
                continue
            for source in starred:
                columns = self._columns(source)
                if columns is None:
                    return None
                names += [(name, exp.column(name)) if name in merged else (name, (source, name)) for name in columns]
        return names

    def _starred(self, scope: Scope, projection: exp.Expr) -> list[_Source] | None:
        """The sources all of whose columns a projection selects; None if it is no `*`."""
        if isinstance(projection, exp.Star):
            return list(self._sources(scope).values())
        if isinstance(projection, exp.Column) and isinstance(projection.this, exp.Star):
            source = self._sources(scope).get(projection.table)
            return [source] if source is not None else []
        return None

    def _columns(self, source: _Source) -> list[str] | None:
        if isinstance(source, Scope):
            outputs = self.outputs(source)
            return None if outputs is None else list(outputs)
        if _is_function(source):
            return [str(name) for name in source.alias_column_names] or None
        columns = self._known.get(_relation(source))
        return list(columns) if columns is not None else None

    def _trace(self, scope: Scope, name: str) -> _Trace:
        """What a column of a query comes from."""
        key = (id(scope), name)
        if key in self._under_way:  # a recursive query: the other branch says where it comes from
            return _Trace()
        if key not in self._traced:
            self._under_way.add(key)
            self._traced[key] = self._follow(scope, name)
            self._under_way.discard(key)
        return self._traced[key]

    def _follow(self, scope: Scope, name: str) -> _Trace:
        expression = scope.expression
        outputs = self.outputs(scope)
        output = outputs.get(name) if outputs is not None else None
        if outputs is None and isinstance(expression, exp.Select):
            return self._follow_unlisted(scope, expression, name)
        if isinstance(expression, exp.UDTF) and (output is None or output is expression) and _inner(scope) is None:
            return self._follow_function(scope, expression)
        if output is None:
            return _lost()
        if isinstance(output, int):
            return self._follow_set(scope, output)
        if isinstance(output, tuple):
            return self._follow_source(scope, *output)
        return self._follow_expression(scope, output)

    def _follow_unlisted(self, scope: Scope, select: exp.Select, name: str) -> _Trace:
        """A column of a query with a `*` of something whose columns are not known."""
        if scope.outer_columns:
            return _lost()
        starred: list[_Source] = []
        for projection in select.expressions:
            sources = self._starred(scope, projection)
            if sources is None and _name(projection) == name:
                return self._follow_expression(scope, projection)
            starred += sources or ()
        return self._follow_into(scope, starred, name) or _lost()

    def _follow_set(self, scope: Scope, place: int) -> _Trace:
        """Columns of a union are those at the same place in each of its queries, whatever their names there."""
        trace = _Trace()
        for branch in scope.set_operation_scopes:
            names = list(self.outputs(branch) or ())
            trace.add(self._trace(branch, names[place]) if place < len(names) else _lost())
        return trace

    def _follow_function(self, scope: Scope, function: exp.Expr) -> _Trace:
        """A function or a list of values in the place of a table: what its arguments come from."""
        trace = _Trace(is_made=not isinstance(function, exp.Values), is_lost=function.find(exp.Query) is not None)
        for column in function.find_all(exp.Column):
            trace.add(self._follow_column(scope, column), Kind.EXPRESSION)
        return trace

    def _follow_expression(self, scope: Scope, projection: exp.Expr) -> _Trace:
        value = projection.unalias()
        while isinstance(value, exp.Paren):
            value = value.this
        if isinstance(value, exp.Column):
            return self._follow_column(scope, value)
        kind = Kind.AGGREGATE if any(_is_aggregate(node) for node in _own_nodes(value)) else Kind.EXPRESSION
        trace = _Trace()
        for node in _own_nodes(value):
            if isinstance(node, exp.Column):
                trace.add(self._follow_column(scope, node), kind)
            elif isinstance(node, exp.Query):
                trace.add(self._follow_subquery(scope, node), kind)
            elif isinstance(node, exp.Count) and isinstance(node.this, exp.Star):
                trace.add(self._rows(scope), Kind.AGGREGATE)
            elif isinstance(node, exp.Func) and not isinstance(node, _OF_CONSTANTS):
                trace.is_made = True
        return trace

    def _follow_subquery(self, scope: Scope, query: exp.Query) -> _Trace:
        """A query within an expression: all that it selects."""
        inner = query.unnest() if isinstance(query, exp.Subquery) else query
        found = next((each for each in scope.subquery_scopes if each.expression is inner), None)
        names = self._columns(found) if found is not None else None
        if found is None or names is None:
            return _lost()
        trace = self._rows(found) if isinstance(query.parent, exp.Exists) else _Trace()
        for name in names:
            trace.add(self._trace(found, name))
        return trace

    def _follow_column(self, scope: Scope, column: exp.Column) -> _Trace:
        """A column that an expression names, of one of the sources in reach."""
        reach = list(_reach(scope))
        for place, at in enumerate(reach):
            sources = self._sources(at)
            if column.table:
                if column.table in sources:
                    return self._follow_into(at, [sources[column.table]], column.name) or _lost()
            elif column.name in sources and _is_function(sources[column.name]):
                return self._follow_source(at, sources[column.name], column.name)  # its one value has its name
            elif found := self._follow_into(at, list(sources.values()), column.name):
                is_sure = any(self._may_have(each, column.name, or_unknown=False) for each in sources.values())
                outside = (each for outer in reach[place + 1 :] for each in self._sources(outer).values())
                return found if is_sure or not any(self._may_have(each, column.name) for each in outside) else _lost()
            elif column.name in sources:
                return self._follow_whole_row(at, sources[column.name])
        return _lost()

    def _may_have(self, source: _Source, name: str, *, or_unknown: bool = True) -> bool:
        columns = self._columns(source)
        return or_unknown if columns is None else name in columns

    def _follow_whole_row(self, scope: Scope, source: _Source) -> _Trace:
        """A row as one value: all of its columns."""
        trace = _Trace()
        names = self._columns(source)
        for name in names or ():
            trace.add(self._follow_source(scope, source, name), Kind.EXPRESSION)
        return trace if names is not None else _lost()

    def _follow_into(self, scope: Scope, sources: Sequence[_Source], name: str) -> _Trace | None:
        """The column of the one source that has it. None if none has; lost if it may be of several."""
        columns = [(source, self._columns(source)) for source in sources]
        having = [source for source, names in columns if names is not None and name in names]
        unknown = [source for source, names in columns if names is None]
        if having:  # of several, `using` makes one column
            trace = _Trace()
            for source in having:
                trace.add(self._follow_source(scope, source, name))
            return trace
        if len(unknown) == 1:
            return self._follow_source(scope, unknown[0], name)
        return _lost() if unknown else None

    def _follow_source(self, scope: Scope, source: _Source, name: str) -> _Trace:
        if isinstance(source, Scope):
            return self._trace(source, name)
        if _is_function(source):
            return self._follow_function(scope, source.this)
        return _Trace.of(_relation(source), name)

    def _rows(self, scope: Scope) -> _Trace:
        """The rows of a query: of what it selects from and joins."""
        key = (id(scope), "*")
        if key in self._under_way:
            return _Trace()
        self._under_way.add(key)
        trace = _Trace()
        if isinstance(scope.expression, exp.SetOperation):
            for branch in scope.set_operation_scopes:
                trace.add(self._rows(branch))
        elif isinstance(scope.expression, exp.Select):
            looked_up = {
                join.this.alias_or_name for join in scope.expression.args.get("joins") or () if join.side == "LEFT"
            }
            for name, source in self._sources(scope).items():
                if name in looked_up:
                    continue
                if isinstance(source, Scope):
                    trace.add(self._rows(source))
                elif not _is_function(source):
                    trace.add(_Trace.of(_relation(source), None))
        self._under_way.discard(key)
        return trace


_OF_CONSTANTS = (
    exp.Cast,
    exp.Coalesce,
    exp.Nullif,
    exp.Case,
    exp.If,
    exp.And,
    exp.Or,
    exp.AggFunc,
    exp.Array,
    exp.Exists,
)
"""What sqlglot has as functions and what makes no value of its own."""


def _is_aggregate(node: exp.Expr) -> bool:
    """Whether it makes one row of several; as a window function it does not."""
    if not isinstance(node, exp.AggFunc | exp.WithinGroup):
        return False
    above = node.parent
    while isinstance(above, exp.Filter | exp.WithinGroup | exp.IgnoreNulls | exp.RespectNulls):
        above = above.parent
    return not isinstance(above, exp.Window)


def _own_nodes(value: exp.Expr) -> Iterator[exp.Expr]:
    """The nodes of an expression; of a query within it the query alone."""
    for node in value.walk(prune=lambda each: isinstance(each, exp.Query)):
        if isinstance(node, exp.Expr):
            yield node


def _reach(scope: Scope) -> Iterator[Scope]:
    """The queries whose sources a query may name: its own, and if it stands in an expression those outside of it."""
    at: Scope | None = scope
    while at is not None:
        yield at
        at = at.parent if at.is_subquery or at.is_udtf or at.is_set_operation else None


def _is_function(source: _Source) -> bool:
    if isinstance(source, Scope):
        return isinstance(source.expression, exp.UDTF) and _inner(source) is None
    return not isinstance(source.this, exp.Identifier)


def _inner(scope: Scope) -> Scope | None:
    """The one query that a scope only wraps: in parentheses, or a lateral one."""
    if isinstance(scope.expression, exp.Subquery) or (
        isinstance(scope.expression, exp.Lateral) and isinstance(scope.expression.this, exp.Subquery)
    ):
        found = [*scope.subquery_scopes, *scope.derived_table_scopes]
        return found[0] if len(found) == 1 else None
    return None


def _relation(table: exp.Table) -> Relation:
    return (table.db, table.name)


def _name(projection: exp.Expr) -> str:
    """The name that PostgreSQL gives to a column of the result."""
    value = projection
    while isinstance(value, exp.Paren):
        value = value.this
    if name := value.output_name:
        return name
    if isinstance(value, exp.Anonymous):
        return value.name.lower()
    if isinstance(value, exp.Case):
        return "case"
    return value.sql_name().lower() if isinstance(value, exp.Func) else "?column?"


def _sorting(origin: Origin) -> tuple[Relation, str]:
    return (origin.relation, origin.column or "")
