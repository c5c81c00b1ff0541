"""FTP beside vsftpd and pyftpdlib."""
