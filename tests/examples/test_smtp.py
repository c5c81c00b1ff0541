"""The examples of mail, as a person runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from asyncnet.smtp.message import parse_message
from tests.cli.test_send import post_office
from tests.examples.test_getfile import ENVIRONMENT, SECONDS, example


def test_a_message_with_an_attachment_and_a_subject_in_greek_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "\u03b1\u03c1\u03c7\u03b5\u03af\u03bf.bin"
    file.write_bytes(bytes(range(256)) * 100)
    with post_office() as post:
        command = example("send_message.py", post.url, "anna@example.org", "carl@example.net", file)
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=ENVIRONMENT)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("250 2.0.0 ")
        [taken] = post.taken
    message = parse_message(taken.content)
    assert message["Subject"] == "\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1"
    [attachment] = message.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content()) == (file.name, file.read_bytes())
