"""The status document, and the socket on which a daemon serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.admin.status._client import StatusError as StatusError
    from zcfuse.admin.status._client import ask as ask
    from zcfuse.admin.status._client import find_mount as find_mount
    from zcfuse.admin.status._client import read_status as read_status
    from zcfuse.admin.status._client import read_status_of as read_status_of
    from zcfuse.admin.status._client import request_unmount as request_unmount
    from zcfuse.admin.status._document import HotFile as HotFile
    from zcfuse.admin.status._document import Refusal as Refusal
    from zcfuse.admin.status._document import RenewReply as RenewReply
    from zcfuse.admin.status._document import Reply as Reply
    from zcfuse.admin.status._document import Request as Request
    from zcfuse.admin.status._document import Restart as Restart
    from zcfuse.admin.status._document import StatusDocument as StatusDocument
    from zcfuse.admin.status._document import Survival as Survival
    from zcfuse.admin.status._document import SyncReply as SyncReply
    from zcfuse.admin.status._document import ThreadUsage as ThreadUsage
    from zcfuse.admin.status._document import UnmountReply as UnmountReply
    from zcfuse.admin.status._document import printable as printable
    from zcfuse.admin.status._document import thread_usage as thread_usage
    from zcfuse.admin.status._holder import HolderState as HolderState
    from zcfuse.admin.status._holder import end_holder as end_holder
    from zcfuse.admin.status._holder import holder_state as holder_state
    from zcfuse.admin.status._hot_files import MOST_HOT_FILES as MOST_HOT_FILES
    from zcfuse.admin.status._hot_files import HotFiles as HotFiles
    from zcfuse.admin.status._registry import connect_holder as connect_holder
    from zcfuse.admin.status._registry import list_mounts as list_mounts
    from zcfuse.admin.status._registry import listen_for_programs as listen_for_programs
    from zcfuse.admin.status._registry import listening as listening
    from zcfuse.admin.status._registry import remove_holder_socket as remove_holder_socket
    from zcfuse.admin.status._registry import runtime_directory as runtime_directory
    from zcfuse.admin.status._server import serve_status as serve_status
else:
    __getattr__ = lazy(
        __name__,
        {
            "_client": (
                "StatusError",
                "ask",
                "find_mount",
                "read_status",
                "read_status_of",
                "request_unmount",
            ),
            "_document": (
                "HotFile",
                "Refusal",
                "RenewReply",
                "Reply",
                "Request",
                "Restart",
                "StatusDocument",
                "Survival",
                "ThreadUsage",
                "SyncReply",
                "UnmountReply",
                "printable",
                "thread_usage",
            ),
            "_holder": ("HolderState", "end_holder", "holder_state"),
            "_hot_files": ("MOST_HOT_FILES", "HotFiles"),
            "_registry": (
                "connect_holder",
                "list_mounts",
                "listen_for_programs",
                "listening",
                "remove_holder_socket",
                "runtime_directory",
            ),
            "_server": ("serve_status",),
        },
    )
