"""All that talks to the outside: sources, the landing, the warehouse. Knows nothing of Prefect or dbt.

A definition (`model`, and `rest`, `postgres`, `sql` or `files`) says what a source is; those under `sources` are listed
in `registry`. `ingest` brings one stream in: read, landed and loaded (`treatments`, `destinations`). What is done with
what is there has a module or a folder each: `backfill`, `replay`, `rebuild`, `deletions`, `reconcile`, `forget`,
`sweep`, `export`, `lake`, `backups`. What is wrong is known to `incidents`, and told by `alerts`.
"""
