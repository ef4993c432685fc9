head --bytes=1M /dev/urandom >/data/model.bin
