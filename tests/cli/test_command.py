"""The command as a whole: its help, and what it imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asyncnet import __version__
from asyncnet.cli import main
from asyncnet.cli.kinds import KINDS
from tests.cli.command import DEADLINE, environment, run

COMMANDS = ("serve", "connect", "fetch", "put", "ls", "send", "mail", "queue", "passwd")


def test_the_version_is_told() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"asyncnet {__version__}\n", "")


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in COMMANDS)
    assert "asyncnet serve http tcp://127.0.0.1:8080 --root public" in out


@pytest.mark.parametrize("command", [*COMMANDS, *(f"serve {kind}" for kind in KINDS)])
def test_every_command_and_kind_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: asyncnet {command} ")
    assert out.isascii()  # so that a terminal of any encoding can show it


@pytest.mark.parametrize("arguments", [[], ["serve"], ["no-such-command"], ["--no-such-option"]])
def test_a_wrong_command_line_ends_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def imported(program: str) -> set[str]:
    """The modules that are imported when `program` has run."""
    program = f"import sys\ntry:\n    {program}\nexcept SystemExit:\n    pass\nprint('modules:', *sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return set(result.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_no_trio(option: str) -> None:
    modules = imported(f"from asyncnet.cli import main; main(['{option}'])")
    assert "asyncnet.cli" in modules
    assert not modules & {"trio", "ssl", "socket", "asyncio", "asyncnet.service"}


def test_a_kind_imports_no_other_kind_s_room() -> None:
    modules = imported(
        "from argparse import Namespace; from asyncnet.cli import kinds, serve;"
        " kinds.KINDS['echo'].make_handler(Namespace(program=[]))"
    )
    assert "asyncnet.echo" in modules
    assert not modules & {
        "asyncnet.http",
        "asyncnet.ftp",
        "asyncnet.auth",
        "h11",
        "argon2",
        "asyncnet.cli.connect",
        "asyncnet.cli.passwd",
    }


@pytest.mark.parametrize("command", ["fetch", "put", "ls", "send", "serve ftp"])
def test_the_help_of_what_moves_files_imports_no_protocol(command: str) -> None:
    modules = imported(f"from asyncnet.cli import main; main({[*command.split(), '--help']})")
    assert f"asyncnet.cli.{command.partition(' ')[0]}" in modules
    assert not modules & {"asyncnet.http", "asyncnet.ftp", "asyncnet.smtp", "asyncnet.auth", "h11", "rich"}


def test_a_client_of_mail_loads_no_server_and_nothing_for_passwords_that_it_does_not_need() -> None:
    modules = imported("import asyncnet.cli.send_smtp")
    assert not modules & {
        "asyncnet.http",
        "asyncnet.ftp",
        "asyncnet.smtp.server",
        "asyncnet.service",
        "argon2",
        "scramp",
    }


def test_a_client_of_ftp_loads_no_server_and_no_http() -> None:
    modules = imported("import asyncnet.cli.fetch_ftp, asyncnet.cli.put_ftp, asyncnet.cli.ls_ftp")
    assert not modules & {"asyncnet.http", "asyncnet.ftp.server", "asyncnet.service", "asyncnet.auth"}
