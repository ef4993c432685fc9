# The wheels in a bare system with Python alone: no compiler, no libfuse3, no package index.
# scripts/test-install runs it as root in a chroot. Each line must succeed.
. /src/tests/install/common.sh

apt-get -q update >/dev/null
apt-get -q install --yes --no-install-recommends python3-venv zstd >/dev/null
must_lack c++ gcc fusermount3
! ldconfig -p | grep --quiet libfuse3
prepare_data

python3 -m venv /opt/zcfuse
/opt/zcfuse/bin/pip install --quiet --no-index --find-links /dist zcfuse
export PATH=/opt/zcfuse/bin:$PATH
zcfuse mount /data /mnt/zc
cmp /data/large /mnt/zc/large
cmp /data/directory/deep /mnt/zc/directory/deep
zcfuse umount /mnt/zc
say 'root mounts with the libfuse3 of the wheel'

prepare_archives
status=0
zcfuse mount /archives/set.tar.gz /mnt/zc 2>/tmp/said || status=$?
test "$status" = 2
grep --quiet --fixed-strings "pip install 'zcfuse[compressed]'" /tmp/said
/opt/zcfuse/bin/pip install --quiet --no-index --find-links /dist 'zcfuse[compressed]'
read_archives
say 'compressed archives by the extra'

apt-get -q install --yes --no-install-recommends fuse3 >/dev/null
useradd --create-home you
chown you /mnt/zc
runuser -u you -- zcfuse mount /data /mnt/zc
runuser -u you -- cmp /data/large /mnt/zc/large
runuser -u you -- zcfuse umount /mnt/zc
say 'an ordinary user mounts by fusermount3'

zcfuse setup >/dev/null
mount -t fuse.zcfuse -o ro /data /mnt/zc
cmp /data/small /mnt/zc/small
umount /mnt/zc
zcfuse setup --uninstall >/dev/null
say 'setup serves mount(8)'
