head --bytes=100000 /dev/urandom >/data/model.bin
head --bytes=20480 /dev/urandom >/shards/000.tar
echo a >/data/a
head --bytes=300 /dev/urandom >/data/b
