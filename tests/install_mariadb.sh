#!/usr/bin/env bash
# Unpack a MariaDB server for the tests into the folder given, from the packages of Debian or Ubuntu: as any user, and
# without installing anything. Where there is none to be had, say so and let the tests that need it be skipped.
set -euo pipefail
target=$1
PATH=$PATH:/usr/sbin

without() {
    echo "$1: tests of MySQL are skipped, unless HEADWATER_TEST_MYSQL names a server."
    exit 0
}

# The server's package, and those that it needs and that are not on this machine.
download() {
    local packages
    packages=$(apt-get install --simulate --no-install-recommends mariadb-server-core | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    # shellcheck disable=SC2086
    [ -n "$packages" ] && (cd "$target/packages" && apt-get download $packages)
}

if [ -n "${HEADWATER_TEST_MYSQL:-}" ] || command -v mariadbd >/dev/null || [ -e "$target/.unpacked" ]; then
    exit 0
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || without "There is no MariaDB server here, and no apt-get"
echo "Unpacking a MariaDB server for the tests into $target (once) …"
rm -rf "$target"
mkdir -p "$target/packages"
if ! download >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 || true
    download >/dev/null 2>&1 || without "apt-get has no package mariadb-server-core (is \`apt-get update\` due?)"
fi
for package in "$target"/packages/*.deb; do
    dpkg-deb --extract "$package" "$target"
done
rm -rf "$target/packages"
touch "$target/.unpacked"
