"""FTP for Trio: RFC 959 and what came after it, with TLS (RFC 4217).

A server is `FTPHandler(files, …)`, where `files` is a folder or any `Storage`. A client is
`async with FTPClient.connect(url) as ftp`; `mirror_down` and `mirror_up` move whole trees.

The names are imported when they are first asked for, so that a client loads no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnet.ftp.client import FTPClient as FTPClient
    from asyncnet.ftp.client import HashMismatch as HashMismatch
    from asyncnet.ftp.client import NotSupported as NotSupported
    from asyncnet.ftp.client import PermanentReplyError as PermanentReplyError
    from asyncnet.ftp.client import ReplyError as ReplyError
    from asyncnet.ftp.client import ServiceClosing as ServiceClosing
    from asyncnet.ftp.client import TransientReplyError as TransientReplyError
    from asyncnet.ftp.client import URLError as URLError
    from asyncnet.ftp.client_listing import EntryKind as EntryKind
    from asyncnet.ftp.client_listing import RemoteEntry as RemoteEntry
    from asyncnet.ftp.client_listing import is_safe_name as is_safe_name
    from asyncnet.ftp.events import Changed as Changed
    from asyncnet.ftp.events import LoggedIn as LoggedIn
    from asyncnet.ftp.events import Moved as Moved
    from asyncnet.ftp.limited_files import LimitedFiles as LimitedFiles
    from asyncnet.ftp.limits import FTPLimits as FTPLimits
    from asyncnet.ftp.limits import FTPTimeouts as FTPTimeouts
    from asyncnet.ftp.local_files import LocalFiles as LocalFiles
    from asyncnet.ftp.memory_files import MemoryFiles as MemoryFiles
    from asyncnet.ftp.mirror import Outcome as Outcome
    from asyncnet.ftp.mirror import Step as Step
    from asyncnet.ftp.mirror import mirror_down as mirror_down
    from asyncnet.ftp.mirror import mirror_up as mirror_up
    from asyncnet.ftp.mounted_files import MountedFiles as MountedFiles
    from asyncnet.ftp.server import FTPHandler as FTPHandler
    from asyncnet.ftp.storage import DirectUpload as DirectUpload
    from asyncnet.ftp.storage import Download as Download
    from asyncnet.ftp.storage import Entry as Entry
    from asyncnet.ftp.storage import HashAlgorithm as HashAlgorithm
    from asyncnet.ftp.storage import Status as Status
    from asyncnet.ftp.storage import Storage as Storage
    from asyncnet.ftp.storage import Upload as Upload
    from asyncnet.ftp.url import FTPURL as FTPURL
else:
    from asyncnet.lazy import lazy_names

    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "client": (
                "FTPClient",
                "HashMismatch",
                "NotSupported",
                "PermanentReplyError",
                "ReplyError",
                "ServiceClosing",
                "TransientReplyError",
                "URLError",
            ),
            "client_listing": ("EntryKind", "RemoteEntry", "is_safe_name"),
            "events": ("Changed", "LoggedIn", "Moved"),
            "limited_files": ("LimitedFiles",),
            "limits": ("FTPLimits", "FTPTimeouts"),
            "local_files": ("LocalFiles",),
            "memory_files": ("MemoryFiles",),
            "mirror": ("Outcome", "Step", "mirror_down", "mirror_up"),
            "mounted_files": ("MountedFiles",),
            "server": ("FTPHandler",),
            "storage": ("DirectUpload", "Download", "Entry", "HashAlgorithm", "Status", "Storage", "Upload"),
            "url": ("FTPURL",),
        },
    )
