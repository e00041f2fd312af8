#!/bin/sh
# Run tests on the Python of a Debian suite, in a root file system that is made for it and removed afterwards.
#
#   debian.sh SUITE [ARGUMENT OF PYTEST]...
#
# It takes root, mmdebstrap and a package index. Hypothesis' profile "ci" sets no time limits: a new file
# system has none of its caches.
set -eu
suite=$1
shift
here=$(cd "$(dirname "$0")/.." && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mmdebstrap --quiet --variant=essential --include=python3,python3-venv,ca-certificates,libstdc++6 "$suite" "$root"
mkdir "$root/src"
tar -C "$here" -c --exclude-vcs --exclude=./.venv --exclude=./var --exclude=./dist . | tar -C "$root/src" -x
# The index answers to this machine's names and certificates.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cp -L "$file" "$root$file"
done

# The mounts end with the last process.
unshare --mount --pid --fork --kill-child sh -euc '
    root=$1
    shift
    mount --make-rprivate /
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    exec chroot "$root" /usr/bin/env PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 HOME=/root sh -euc "
        cd /src
        python3 -m venv /venv
        pip=\"/venv/bin/pip --quiet --disable-pip-version-check\"
        \$pip install --require-hashes --only-binary=:all: --requirement packaging/lock/tools.txt
        \$pip install --no-deps --no-build-isolation --editable .
        exec /venv/bin/pytest --hypothesis-profile=ci \"\$@\"
    " pytest "$@"
' namespaces "$root" "$@"
