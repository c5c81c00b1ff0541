"""The file of --aliases while the server runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from asyncnet.cli.smtp_aliases import LOOK_EVERY, AliasFile
from asyncnet.smtp.address import MailAddress
from asyncnet.smtp.envelope import Envelope
from tests.relay.use import CLIENT, to


async def nobody(address: MailAddress) -> bool:
    return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "aliases.toml", '"info@example.org" = ["anna@example.org"]')


def write(path: Path, text: str) -> Path:
    """Replace the file: another inode, so that the change never hides in a coarse clock."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
    return path


async def behind(aliases: AliasFile, address: str) -> list[str]:
    """Who gets the mail of an address."""
    (recipient,) = to(address)
    return [str(one.address) for one in await aliases.recipient(recipient, Envelope(None), CLIENT)]


async def test_what_has_changed_is_read_again(path: Path, mock_clock: trio.testing.MockClock) -> None:
    aliases = AliasFile(str(path), known=nobody)
    assert await behind(aliases, "info@example.org") == ["anna@example.org"]
    write(path, '"info@example.org" = ["bert@example.org"]\n"@example.com" = ["anna@example.org"]')
    mock_clock.jump(LOOK_EVERY)
    assert await behind(aliases, "info@example.org") == ["bert@example.org"]
    assert await behind(aliases, "x@example.com") == ["anna@example.org"]


@pytest.mark.parametrize("text", ['"info@example.org" = ["anna"]', "[[", None])
async def test_what_is_wrong_leaves_them_as_they_were_and_is_told_once(
    path: Path, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    aliases = AliasFile(str(path), known=nobody)
    if text is None:
        path.unlink()
    else:
        write(path, text)
    for _ in range(3):
        mock_clock.jump(LOOK_EVERY)
        assert await behind(aliases, "info@example.org") == ["anna@example.org"]
    (message,) = caplog.messages
    assert message.startswith(f"--aliases {path}: ")
    assert message.endswith("; the aliases stay as they were")
    write(path, '"info@example.org" = ["bert@example.org"]')
    mock_clock.jump(LOOK_EVERY)
    assert await behind(aliases, "info@example.org") == ["bert@example.org"]
