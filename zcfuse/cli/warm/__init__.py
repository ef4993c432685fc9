"""``zcfuse warm``."""
