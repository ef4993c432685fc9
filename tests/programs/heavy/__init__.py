"""Programs that take hundreds of megabytes to install, for ``make proof`` alone.

Their tests carry the mark `proof`, which pytest skips by default.
"""
