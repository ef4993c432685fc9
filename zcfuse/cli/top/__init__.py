"""``zcfuse top``."""
