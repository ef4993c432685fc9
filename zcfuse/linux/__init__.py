"""Linux interfaces that Python lacks: mounts, mappings, statx, capabilities, perf events.

No other package uses ctypes. Nothing here knows of trees or of FUSE requests.
"""
