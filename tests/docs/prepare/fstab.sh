echo a >/data/a
