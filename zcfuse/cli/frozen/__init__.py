"""``zcfuse freeze`` and ``zcfuse check``, and the images that ``zcfuse mount`` is given."""
