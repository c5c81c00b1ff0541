"""Users and their passwords, for every protocol: who may log in, how guessing is slowed, where a password may pass.

`UserFile` is the embedded `Authenticator`; a program with users of its own writes another one. A server asks
`passwords_allowed` before it offers a mechanism, and sends every attempt through a `LoginGuard`. The exchanges of SASL,
for servers and clients, are in `asyncnet.auth.sasl`. argon2-cffi and scramp are imported at first use:
`pip install "asyncnet[auth]"` brings them.
"""

from asyncnet.auth.guard import LoginGuard, Logins, passwords_allowed
from asyncnet.auth.identity import Authenticator, Identity
from asyncnet.auth.scram import ScramKeys
from asyncnet.auth.userfile import UserFile

__all__ = [
    "Authenticator",
    "Identity",
    "LoginGuard",
    "Logins",
    "ScramKeys",
    "UserFile",
    "passwords_allowed",
]
