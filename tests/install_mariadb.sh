#!/usr/bin/env bash
# Unpack a MariaDB server for the tests into the folder given, from the packages of Debian or Ubuntu: as any user, and
# without installing anything. Elsewhere say so, and leave it to whoever runs the tests.
set -euo pipefail
target=$1
PATH=$PATH:/usr/sbin

if command -v mariadbd >/dev/null || [ -e "$target/.unpacked" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "No MariaDB here: tests of MySQL are skipped, unless HEADWATER_TEST_MYSQL names a server."
    exit 0
fi
echo "Unpacking a MariaDB server for the tests into $target (once) …"
rm -rf "$target"
mkdir -p "$target/packages"

# The server's package, and those that it needs and that are not on this machine.
packages() {
    apt-get install --simulate --no-install-recommends mariadb-server-core 2>/dev/null | sed -n 's/^Inst \([^ ]*\).*/\1/p'
}
names=$(packages || true)
if [ -z "$names" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq >/dev/null
    names=$(packages || true)
fi
if [ -z "$names" ]; then
    echo "No package mariadb-server-core here (is apt-get update due?): tests of MySQL are skipped."
    exit 0
fi
# shellcheck disable=SC2086
(cd "$target/packages" && apt-get download -qq $names 2>/dev/null) || {
    echo "The packages of MariaDB cannot be downloaded: tests of MySQL are skipped."
    exit 0
}
for package in "$target"/packages/*.deb; do
    dpkg-deb --extract "$package" "$target"
done
rm -rf "$target/packages"
touch "$target/.unpacked"
