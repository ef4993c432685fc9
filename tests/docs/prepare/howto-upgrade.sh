zcfuse mount /data /mnt/zc
