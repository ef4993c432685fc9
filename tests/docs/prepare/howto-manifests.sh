head --bytes=100000 /dev/urandom >/data/model-v7.bin
echo 1 >000001.cls
echo one >000001.jpg
tar --create --file=/shards/train-0000.tar 000001.cls 000001.jpg
