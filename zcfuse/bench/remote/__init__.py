"""Measures mounts of a bucket that a local server holds: by zcfuse and by other programs."""

from zcfuse.bench.remote._rounds import ROWS, RemoteReport, Row, run_remote
from zcfuse.bench.remote._server import Bucket, serving

__all__ = ["ROWS", "Bucket", "RemoteReport", "Row", "run_remote", "serving"]
