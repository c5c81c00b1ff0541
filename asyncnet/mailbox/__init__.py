"""Where delivered mail lives: `maildir.Maildir` on a disk, `memory.MemoryMailbox` for tests and for programs.

`storage` has the interfaces. POP3 reads what is here, and IMAP is to read the same. The names are imported when they
are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnet.mailbox.domains import Domains as Domains
    from asyncnet.mailbox.maildir import Maildir as Maildir
    from asyncnet.mailbox.maildir import Maildirs as Maildirs
    from asyncnet.mailbox.memory import MemoryMailbox as MemoryMailbox
    from asyncnet.mailbox.memory import MemoryMailboxes as MemoryMailboxes
    from asyncnet.mailbox.storage import Flag as Flag
    from asyncnet.mailbox.storage import Incoming as Incoming
    from asyncnet.mailbox.storage import Mailbox as Mailbox
    from asyncnet.mailbox.storage import Mailboxes as Mailboxes
    from asyncnet.mailbox.storage import Message as Message
else:
    from asyncnet.lazy import lazy_names

    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "domains": ("Domains",),
            "maildir": ("Maildir", "Maildirs"),
            "memory": ("MemoryMailbox", "MemoryMailboxes"),
            "storage": ("Flag", "Incoming", "Mailbox", "Mailboxes", "Message"),
        },
    )
