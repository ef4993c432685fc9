mkdir -p /data/d
echo one >/data/one
echo two >/data/d/two
mkdir -p /layers/top /layers/base /layers/changes
echo base >/layers/base/one
