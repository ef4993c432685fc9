# The Debian package in a bare system: install, mount, read, unmount, upgrade over a running mount, purge.
# scripts/test-install runs it as root in a chroot. Each line must succeed.
. /src/tests/install/common.sh

must_lack c++ gcc pip
apt-get -q update >/dev/null
apt-get -q install --yes --no-install-recommends zstd >/dev/null
before=$(snapshot)
apt-get -q install --yes --no-install-recommends /dist/zcfuse.deb >/dev/null
say 'installed without a compiler'
prepare_data

zcfuse mount /data /mnt/zc
cmp /data/large /mnt/zc/large
zcfuse status /mnt/zc >/dev/null
zcfuse umount /mnt/zc
mount -t fuse.zcfuse -o ro /data /mnt/zc
cmp /data/large /mnt/zc/large
umount /mnt/zc
say 'mounted by zcfuse and by mount(8)'

prepare_archives
read_archives
say 'compressed archives'

# What the package says is there, and its unit names programs that exist.
test -x "$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' /usr/lib/systemd/system/zcfuse@.service)"
! grep -E '^Exec[A-Za-z]*=-?zcfuse' /usr/lib/systemd/system/zcfuse@.service
# dpkg leaves manual pages out where the system says so; the package has them.
dpkg-deb --contents /dist/zcfuse.deb >/tmp/contents
grep --quiet 'man1/zcfuse\.1\.gz' /tmp/contents
grep --quiet 'man1/zcfuse-mount\.1\.gz' /tmp/contents
grep --quiet 'man8/mount\.fuse\.zcfuse\.8\.gz' /tmp/contents
compopt() { :; }
. /usr/share/bash-completion/completions/zcfuse
COMP_WORDS=(zcfuse bench tr) COMP_CWORD=2
"$(complete -p zcfuse | sed 's/.*-F \([^ ]*\) .*/\1/')" zcfuse
test "${COMPREPLY[*]}" = transfer
say 'unit, manual pages and completion'

zcfuse mount /data /mnt/zc
exec 5</mnt/zc/large
daemon=$(daemon_of /mnt/zc)
apt-get -q install --yes --no-install-recommends /dist/zcfuse-newer.deb >/dev/null
test "$(dpkg-query --show --showformat '${Version}' zcfuse | tail -c 2)" = .1
test "$(daemon_of /mnt/zc)" = "$daemon"
cmp /data/large - <&5
exec 5<&-
echo later >/data/later
wait_for test -e /mnt/zc/later
cmp /data/later /mnt/zc/later
cmp /data/small /mnt/zc/small
zcfuse status /mnt/zc >/dev/null
zcfuse explain /mnt/zc/small >/dev/null
zcfuse umount /mnt/zc
! mountpoint --quiet /mnt/zc
wait_for test ! -e "/proc/$daemon"
say 'upgraded over a running mount'

zcfuse mount /data /mnt/zc
daemon=$(daemon_of /mnt/zc)
apt-get -q purge --yes zcfuse >/dev/null
wait_for test ! -e "/proc/$daemon"
! mountpoint --quiet /mnt/zc
rm -rf /data /archives /mnt/zc
apt-get -q autoremove --purge --yes >/dev/null
# Indexes of archives in a user's own cache are the user's.
left=$(comm -13 <(printf '%s\n' "$before") <(snapshot) | grep zcfuse | grep --invert-match '/\.cache/' || true)
test -z "$left" || { echo "$left" >&2; exit 1; }
say 'purged without a trace'
