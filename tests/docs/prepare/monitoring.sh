echo a >/data/a
zcfuse mount /data /mnt/zc
