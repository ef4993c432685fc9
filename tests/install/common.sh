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

# A directory, and archives of it, one of each compression.
prepare_archives() {
    mkdir -p /archives/shown/directory
    head --bytes=2M /data/large >/archives/shown/middle
    echo deep >/archives/shown/directory/deep
    python3 - <<'PROGRAM'
import tarfile

for compression in ("gz", "bz2", "xz"):
    with tarfile.open(f"/archives/set.tar.{compression}", f"w:{compression}") as archive:
        archive.add("/archives/shown", "shown")
PROGRAM
    tar --create --directory /archives shown | zstd --quiet -o /archives/set.tar.zst
}

# Mount each archive, and compare its members with the files.
read_archives() {
    local archive
    for archive in /archives/set.tar.*; do
        zcfuse mount "$archive" /mnt/zc
        diff --recursive /archives/shown /mnt/zc/shown
        zcfuse umount /mnt/zc
    done
}

daemon_of() {
    zcfuse status --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'
}

# Every file of the system.
snapshot() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /dist -o -path /src -o -path /tmp \
        -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/log \) -prune -o -print | sort
}
