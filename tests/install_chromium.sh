#!/usr/bin/env bash
# Unpack a Chromium for the tests of the status page into the folder given, unless there is one already.
set -euo pipefail
target=$1

without() {
    echo "$1: tests of the status page in a browser are skipped, unless HEADWATER_TEST_CHROMIUM names one."
    exit 0
}
# shellcheck source=tests/unpack_packages.sh
. "$(dirname "$0")/unpack_packages.sh"

if [ -n "${HEADWATER_TEST_CHROMIUM:-}" ] || [ -e "$target/.unpacked" ]; then
    exit 0
fi
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && exit 0
done
unpack "$target" chromium
