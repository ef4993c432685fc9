mkdir -p /data/raw
head --bytes=20480 /dev/urandom >/shards/000.tar
echo 1,2 >labels-v2.csv
echo acgt >chr1.fa
head --bytes=200 /dev/zero >chr2.fa
