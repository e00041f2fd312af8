#!/bin/sh
# Install the agent: its virtual environment, its unit, and the files that create its user and folders.
#
#   install.sh PIP PYTHON DESTDIR PREFIX SYSTEM
#
# PIP installs the wheels that packaging/lock/ names, and PYTHON, the device's own, runs them. Below DESTDIR,
# the environment goes to PREFIX, the unit and its companions to SYSTEM/lib, the bela command to SYSTEM/bin,
# drop-ins of the unit to SYSTEM/share/belatwist/drop-ins, and the documentation to SYSTEM/share/doc. The script keeps an existing configuration. SOURCE_DATE_EPOCH is the
# time of every file.
set -eu
umask 022
pip=$1 python=$2 destdir=$3 prefix=$4 system=$5
here=$(cd "$(dirname "$0")/.." && pwd)
epoch=${SOURCE_DATE_EPOCH:-$(date +%s)}

refuse() {
    echo "install: $*" >&2
    exit 1
}

# Names the minor version, so that the environment survives a change of the default Python.
python=$("$python" -c 'import os, sys
sys.exit("install: Python 3.11 or newer is needed: PYTHON=...") if sys.version_info < (3, 11) else \
print(os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2]))')
case $python in
/home/* | /root/* | /tmp/*) refuse "$python: the service sees no homes; name another, as in PYTHON=/usr/bin/python3" ;;
esac
case $prefix in
/*[!/]) ;;
*) refuse "PREFIX=$prefix: an absolute path is needed" ;;
esac
target=$destdir$prefix
if [ -e "$target" ] && [ ! -e "$target/pyvenv.cfg" ] && [ -n "$(ls -A "$target")" ]; then
    refuse "PREFIX=$prefix: a folder of its own is needed, this one has other things in it"
fi

# The old environment works until the new one is complete.
new=$target.new
rm -rf "$new"
build=$(mktemp -d)
trap 'rm -rf "$new" "$build"' EXIT
# The arguments of pip, after the environment in which it works.
pip_in() {
    environment=$1 command=$2
    shift 2
    "$pip" --python "$environment/bin/python" --disable-pip-version-check --quiet "$command" "$@"
}
# Only wheels: the lock does not cover what a source distribution needs to be built.
locked() {
    pip_in "$1" install --no-compile --no-warn-script-location --require-hashes --only-binary=:all: \
        --requirement "$here/packaging/lock/$2.txt"
}
"$python" -m venv --without-pip "$build"
locked "$build" build
pip_in "$build" wheel --no-build-isolation --no-deps --wheel-dir "$build/wheel" "$here"
"$python" -m venv --without-pip "$new"
locked "$new" agent
pip_in "$new" install --no-compile --no-warn-script-location --no-deps --no-index "$build"/wheel/*.whl

# Remove every mention of the folder in which pip installed it.
library=$(echo "$new"/lib/python3.*/site-packages)
rm -rf "$new"/bin/* "$new/include" "$new/lib64" "$library"/*.dist-info/direct_url.json
sed -i '/^\.\.\/\.\.\/\.\.\/bin\//d; /\/direct_url\.json,/d' "$library"/*.dist-info/RECORD
ln -s "$python" "$new/bin/python"
sed -i '/^command = /d' "$new/pyvenv.cfg"
launcher() {
    printf '#!%s/bin/python\nimport sys\nfrom %s import %s as run\nsys.exit(run())\n' \
        "$prefix" "$2" "$3" >"$new/bin/$1"
    chmod 755 "$new/bin/$1"
}
launcher twistd twisted.scripts.twistd run
launcher bela belatwist.cli main

# Compile now, because the service may not write below /opt. Twisted ignores its list of plugins unless
# the list is newer than they are.
find "$new" -depth -exec touch -h -d "@$((epoch - 60))" {} +
"$new/bin/python" -m compileall -q -s "$new" -p "$prefix" "$library"
cd /
"$new/bin/python" -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
chmod 644 "$library/twisted/plugins/dropin.cache"
touch -d "@$epoch" "$library/twisted/plugins/dropin.cache"
rm -rf "$target"
mv "$new" "$target"

put() {
    mkdir -p "$destdir${2%/*}"
    sed "s|/opt/belatwist|$prefix|g; s|/usr/share/doc/belatwist|$docs|g" "$here/$1" >"$destdir$2"
}
docs=$system/share/doc/belatwist
put systemd/metrics-collector.service "$system/lib/systemd/system/metrics-collector.service"
put systemd/sysusers.conf "$system/lib/sysusers.d/metrics-collector.conf"
put systemd/tmpfiles.conf "$system/lib/tmpfiles.d/metrics-collector.conf"
# No drop-in of a source is active here: the operator copies those that `bela check` names.
examples=$system/share/belatwist/drop-ins
rm -rf "$destdir$docs" "$destdir$examples"
for drop_in in "$here"/systemd/metrics-collector.service.d/*.conf; do
    [ ! -e "$drop_in" ] || put "${drop_in#"$here"/}" "$examples/${drop_in##*/}"
done
(cd "$here/docs" && find . -name '*.md') | while read -r page; do put "docs/$page" "$docs/$page"; done
put LICENSE "$docs/LICENSE"
mkdir -p "$destdir$system/bin"
ln -sfn "$prefix/bin/bela" "$destdir$system/bin/bela"
config=/etc/belabox-metrics/config.yaml
[ -e "$destdir$config" ] || put configs/config.yaml "$config"

if [ -z "$destdir" ]; then
    systemd-sysusers "$system/lib/sysusers.d/metrics-collector.conf"
    systemd-tmpfiles --create "$system/lib/tmpfiles.d/metrics-collector.conf"
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
