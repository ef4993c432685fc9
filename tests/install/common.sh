# For the scripts beside this one.

say() { echo "    $*"; }

must_lack() {
    local name
    for name; do
        if command -v "$name" >/dev/null; then
            echo "$name is here: this is no bare system" >&2
            exit 1
        fi
    done
}

# Bounded: 20 seconds.
wait_for() {
    local _
    for _ in $(seq 200); do
        "$@" && return
        sleep 0.1
    done
    echo "in vain: $*" >&2
    exit 1
}

prepare_data() {
    mkdir -p /data/directory /mnt/zc
    head --bytes=20M /dev/urandom >/data/large
    echo small >/data/small
    echo deep >/data/directory/deep
}

daemon_of() {
    zcfuse status --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'
}

# Every file of the system.
snapshot() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /dist -o -path /src -o -path /tmp \
        -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/log \) -prune -o -print | sort
}
