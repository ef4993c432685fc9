mkdir /data/train
for n in 1 2; do head --bytes=20K /dev/urandom >/data/train/$n.jpg; done
head --bytes=1M /dev/urandom >/data/model.bin
zcfuse mount /data /mnt/zc
