#!/bin/sh
# Build the Debian package, for this machine's architecture and Python.
#
#   deb.sh PIP PYTHON OUTPUT
#
# PIP and PYTHON are the arguments of install.sh; the package goes to the folder OUTPUT.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$3"
output=$(cd "$3" && pwd)
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

root=$output/root
rm -rf "$root"
trap 'rm -rf "$root"' EXIT
"$here/install.sh" "$1" "$2" "$root" /opt/belatwist /usr

python=$root/opt/belatwist/bin/python
version=$("$python" -c 'import belatwist; print(belatwist.__version__)')
architecture=$(dpkg --print-architecture)
# The newest C library that a wheel needs.
libc=$(cat "$root"/opt/belatwist/lib/python3.*/site-packages/*.dist-info/WHEEL |
    sed -n 's/^Tag: .*manylinux_2_\([0-9]*\)_.*/\1/p' | sort -n | tail -1)

documentation=$root/usr/share/doc/belatwist
{
    cat "$documentation/LICENSE"
    printf '\nThe Python libraries in /opt/belatwist carry their licences in their *.dist-info folders.\n'
} >"$documentation/copyright"
rm "$documentation/LICENSE"

mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: belatwist
Version: $version
Architecture: $architecture
Maintainer: The belatwist developers <belatwist@localhost>
Section: net
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $(basename "$(readlink "$python")"), libc6 (>= 2.${libc:-28}), systemd (>= 247)
Recommends: ca-certificates
Description: metrics agent for small computers on the move
 Collects from /proc and /sys, keeps every sample in SQLite, and uploads to
 VictoriaMetrics when the uplink allows it. The package carries its own Python
 environment in /opt/belatwist, and runs as metrics-collector.service.
CONTROL
echo /etc/belabox-metrics/config.yaml >"$root/DEBIAN/conffiles"
install -m 755 "$here"/debian/* "$root/DEBIAN/"
# dpkg itself keeps the sum of the configuration file, which an operator edits.
(cd "$root" && find . -path ./DEBIAN -prune -o -type f ! -path ./etc/belabox-metrics/config.yaml -printf '%P\0' |
    sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
dpkg-deb --root-owner-group --build "$root" "$output/belatwist_${version}_$architecture.deb"
