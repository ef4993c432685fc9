mkdir -p /data/d
echo one >/data/one
echo two >/data/d/two
