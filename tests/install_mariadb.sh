#!/usr/bin/env bash
# Unpack a MariaDB server for the tests into the folder given, unless there is one already.
set -euo pipefail
target=$1
PATH=$PATH:/usr/sbin

without() {
    echo "$1: tests of MySQL are skipped, unless HEADWATER_TEST_MYSQL names a server."
    exit 0
}
# shellcheck source=tests/unpack_packages.sh
. "$(dirname "$0")/unpack_packages.sh"

if [ -n "${HEADWATER_TEST_MYSQL:-}" ] || command -v mariadbd >/dev/null || [ -e "$target/.unpacked" ]; then
    exit 0
fi
unpack "$target" mariadb-server-core
