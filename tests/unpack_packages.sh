# For the scripts beside this one: programs that the tests use, unpacked from the packages of Debian or Ubuntu into a
# folder of their own, as any user and without installing anything. Where there are none to be had, `without` says what
# follows.

# The package, and those that it needs and that are not on this machine.
download() {
    local target=$1 package=$2 packages
    packages=$(apt-get install --simulate --no-install-recommends "$package" | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    # shellcheck disable=SC2086
    [ -n "$packages" ] && (cd "$target/packages" && apt-get download $packages)
}

unpack() {
    local target=$1 package=$2
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || without "There is no $package here, and no apt-get"
    echo "Unpacking $package for the tests into $target (once) …"
    rm -rf "$target"
    mkdir -p "$target/packages"
    if ! download "$target" "$package" >/dev/null 2>&1; then
        [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 || true
        download "$target" "$package" >/dev/null 2>&1 ||
            without "apt-get has no package $package (is \`apt-get update\` due?)"
    fi
    for file in "$target"/packages/*.deb; do
        dpkg-deb --extract "$file" "$target"
    done
    rm -rf "$target/packages"
    touch "$target/.unpacked"
}
