"""``zcfuse bench`` and ``zcfuse bench transfer``."""
