"""``zcfuse mount`` and ``mount.fuse.zcfuse``."""
