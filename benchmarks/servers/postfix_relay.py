"""Postfix: a relay whose queue is in the folder that the command line names, and whose mail goes to one host.

Its configuration is Debian's, but for what makes it an instance of its own. Needs root.
"""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

from benchmarks.servers import announce, command_line, free_port

MAIN = """\
compatibility_level = 3.6
queue_directory = {spool}/queue
data_directory = {spool}/data
maillog_file_prefixes = {spool}
maillog_file = {spool}/log
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [{host}]:{port}
smtpd_relay_restrictions = permit_mynetworks, reject
alias_maps =
alias_database =
local_recipient_maps =
"""

if __name__ == "__main__":
    options = command_line("spool", "host")
    spool = Path(options.spool)
    configuration = spool / "etc"
    for folder in (configuration, spool / "queue", spool / "data"):
        folder.mkdir()
    os.chown(spool / "data", pwd.getpwnam("postfix").pw_uid, -1)
    host, _, host_port = options.host.rpartition("/")[2].partition(":")
    (configuration / "main.cf").write_text(MAIN.format(spool=spool, host=host, port=host_port))
    port = free_port()
    services = Path("/etc/postfix/master.cf").read_text()
    services = re.sub(r"(?m)^smtp +inet ", f"127.0.0.1:{port} inet ", services)
    # No chroot: there is nothing in it.
    services = re.sub(r"(?m)^(\S+ +(?:inet|unix|unix-dgram) +\S+ +\S+ +)y ", r"\1n ", services)
    (configuration / "master.cf").write_text(services)
    announce(port)
    # Its master leaves the process group by which servers are ended: in a namespace it goes with whoever made that.
    command = ["postfix", "-c", str(configuration), "start-fg"]
    os.execvp("unshare", ["unshare", "--pid", "--fork", "--kill-child", *command])
