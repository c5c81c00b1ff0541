"""nginx: `return 200` at /, and the files of a folder at other paths, by `sendfile`. One process, one worker.

The command line names the folder, and one for what nginx wants to write.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.servers import announce, command_line, free_port

CONFIGURATION = """
daemon off;
master_process off;
pid {scratch}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {scratch};
    proxy_temp_path {scratch};
    fastcgi_temp_path {scratch};
    uwsgi_temp_path {scratch};
    scgi_temp_path {scratch};
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location = / {{
            default_type text/plain;
            return 200 "Hello, world!";
        }}
    }}
}}
"""

if __name__ == "__main__":
    options = command_line("root", "scratch")
    port = free_port()
    configuration = Path(options.scratch) / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(root=options.root, scratch=options.scratch, port=port))
    announce(port)
    os.execvp("nginx", ["nginx", "-c", str(configuration), "-p", options.scratch])
