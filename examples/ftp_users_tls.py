"""An FTP server for people with passwords, who have to use TLS: for the login and for the files.

    asyncnet passwd users.toml anna
    python examples/ftp_users_tls.py users.toml cert.pem [FOLDER]

users.toml may give each of them a folder, permissions, a quota and a bandwidth (docs/ftp.md). Clients begin TLS by
AUTH TLS on the first port (ftpes://), and at once on the second one (ftps://). Ctrl-C ends it.
"""

from __future__ import annotations

import sys

from asyncnet import ServerTLS, Service, run
from asyncnet.auth import UserFile
from asyncnet.ftp import FTPHandler, LoggedIn


async def greet(event: LoggedIn) -> None:
    print(f"{event.user} has logged in from {event.peer}", flush=True)


def tell(service: Service) -> None:
    print(f"open {service.urls[0]} (ftpes) and {service.urls[1]}; Ctrl-C ends it", flush=True)


def main(users: str, certificate: str, folder: str = ".", ports: str = "2121,9990") -> None:
    tls = ServerTLS(certificate, alpn=("ftp",))
    handler = FTPHandler(folder, users=UserFile(users), tls=tls, tls_for_login=True, tls_for_data=True, on_login=greet)
    explicit, implicit = ports.split(",")
    run(handler, f"tcp://127.0.0.1:{explicit}", f"tls://127.0.0.1:{implicit}?cert={certificate}", ready=tell)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
