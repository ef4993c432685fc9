"""Events: the requests that a mount answers, and their way to a reader."""

from __future__ import annotations

from zcfuse.admin.trace._events import Event, TraceReply, events_of
from zcfuse.admin.trace._tracer import POLL_S, Tracer

__all__ = ["POLL_S", "Event", "TraceReply", "Tracer", "events_of"]
