echo started >/data/log
chmod 644 /data/log
