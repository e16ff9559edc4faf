#!/bin/sh
# Run once by the image of PostgreSQL, as its superuser, when the data folder is new.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set owner="$HEADWATER_OWNER_PASSWORD" \
    --set loader="$HEADWATER_LOADER_PASSWORD" \
    --set transformer="$HEADWATER_TRANSFORMER_PASSWORD" \
    --set publisher="$HEADWATER_PUBLISHER_PASSWORD" \
    --set watcher="$HEADWATER_WATCHER_PASSWORD" \
    --set reader="$HEADWATER_READER_PASSWORD" \
    --set prefect="$PREFECT_DATABASE_PASSWORD" \
    --file /headwater/roles.sql
if [ -n "${OPERATIONS_OWNER_PASSWORD:-}" ]; then
    psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set operations_owner="$OPERATIONS_OWNER_PASSWORD" \
        --set operations_app="$OPERATIONS_APP_PASSWORD" \
        --file /headwater/demo.sql
fi
