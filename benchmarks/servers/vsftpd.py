"""vsftpd: anonymous FTP over the folder that the command line names, where everybody may upload. Needs root."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.servers import announce, command_line, free_port

CONFIGURATION = """\
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
local_enable=NO
write_enable=YES
anon_root={root}
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
allow_writeable_chroot=YES
no_anon_password=NO
anon_max_rate=0
anon_umask=022
max_per_ip=0
max_clients=0
xferlog_enable=NO
seccomp_sandbox=NO
secure_chroot_dir={empty}
ftp_username=ftp
"""

if __name__ == "__main__":
    options = command_line("root")
    port = free_port()
    empty = tempfile.mkdtemp()  # where vsftpd shuts itself in
    configuration = Path(empty).with_suffix(".conf")
    configuration.write_text(CONFIGURATION.format(root=options.root, port=port, empty=empty))
    announce(port)
    os.execvp("vsftpd", ["vsftpd", str(configuration)])
