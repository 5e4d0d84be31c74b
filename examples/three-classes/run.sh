#!/bin/sh
# The same three containers in three VCHs, of the classes dev, test and prod: as asked, changed, refused.
#
#   run.sh          DOCKER_HOST is an endpoint of a VCH that has $IMAGE; `cargo xtask plugins` made the plugins
#   run.sh down     takes everything away again
set -eu
bulkhead=${BULKHEAD:-bulkhead}
image=${IMAGE:-bulkhead/first}
plugins=${PLUGINS:-$(dirname "$0")/../../target/plugins}
classes='dev test prod'

if [ "${1:-}" = down ]; then
    for class in $classes; do $bulkhead vch rm --force "three-$class"; done
    exit
fi

# The endpoint of a VCH.
host() {
    $bulkhead -o json vch inspect "$1" | sed -n 's/.*"host": "\(unix:[^"]*\)".*/\1/p'
}

for class in $classes; do
    $bulkhead vch inspect "three-$class" >/dev/null 2>&1 ||
        $bulkhead vch create "three-$class" --class "$class" --tenant three >/dev/null
    docker save "$image" | DOCKER_HOST=$(host "three-$class") docker load --quiet >/dev/null
done

# What test has beside its policies: a cap that lowers. A VCH takes its bindings with it when it goes.
$bulkhead plugin install "$plugins/resource-caps.wasm" >/dev/null
$bulkhead binding set three-caps --plugin resource-caps --vch three-test \
    --settings '{"memory-mib-max": 512, "pids-max": 200}' >/dev/null

# CLASS NAME OPTION…: makes and starts a container, and tells in one line what became of it.
try() {
    class=$1 name=$2
    shift 2
    words=$(mktemp)
    if DOCKER_HOST=$(host "three-$class") docker run --detach --network none --name "$name" "$@" \
        "$image" sleep 1000 >/dev/null 2>"$words"; then
        told=$(sed -n 's/^WARNING: //p' "$words")
        echo "$class $name: ${told:-as asked}"
    else
        echo "$class $name: $(sed -n 's/.*Error response from daemon: //p' "$words")"
    fi
    rm "$words"
}

for class in $classes; do
    try "$class" web --memory 256m
    try "$class" batch --memory 1536m
    try "$class" debug --memory 256m --privileged
done
