mkdir -p /mnt/shard /mnt/shards
echo one >000017.txt
tar --create --file=data.tar 000017.txt
gzip --keep data.tar
tar --create --file=train.tar 000017.txt
python -m zipfile -c test.zip 000017.txt
cp train.tar /shards/train.tar
cp train.tar /shards/test.tar
