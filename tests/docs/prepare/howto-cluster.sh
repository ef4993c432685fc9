head --bytes=100000 /dev/urandom >/data/model.bin
