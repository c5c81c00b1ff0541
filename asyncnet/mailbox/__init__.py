"""Where delivered mail lives: `maildir.Maildir` on a disk, `memory.MemoryMailbox` for tests and for programs.

`storage` has the interfaces. POP3 reads what is here, and IMAP is to read the same.
"""
