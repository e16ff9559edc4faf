#!/bin/sh
# The first process after tini: puts what the image was built with where it may be written to, and becomes the command.
set -eu
if [ ! -e "$HEADWATER_DBT_TARGET/manifest.json" ]; then
    mkdir -p "$HEADWATER_DBT_TARGET"
    cp /opt/headwater/prepared/dbt/*.json "$HEADWATER_DBT_TARGET"
fi
exec "$@"
