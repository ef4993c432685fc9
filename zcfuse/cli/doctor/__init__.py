"""``zcfuse doctor``."""
