mkdir -p /data/train/cats /data/train/dogs
for name in cats/1 cats/2 dogs/1 dogs/2; do echo "$name" >/data/train/$name.jpg; done
head --bytes=1000000 /dev/zero >/data/tokens.bin
echo 1 >000001.cls
echo one >000001.jpg
tar --create --file=/shards/train-0000.tar 000001.cls 000001.jpg
