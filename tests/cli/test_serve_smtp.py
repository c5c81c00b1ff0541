"""`asyncnet serve smtp` as whoever runs it sees it: what clients may send, where it arrives, what is refused."""

from __future__ import annotations

import mailbox
import os
import signal
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import argon2
import pytest
import trustme
from argon2.profiles import CHEAPEST

from asyncnet.cli import main
from tests.cli.command import DEADLINE, run, serving

MESSAGE = "From: anna@example.org\r\nTo: carl@example.com\r\nSubject: hello\r\n\r\nhow are you?\r\n"


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.toml"
    hashed = argon2.PasswordHasher.from_parameters(CHEAPEST).hash("secret")
    path.write_text(f'[users.anna]\npassword = "{hashed}"\n')
    path.chmod(0o600)
    return path


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    folder = tmp_path / "mail"
    (folder / "carl").mkdir(parents=True)
    return folder


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "cert.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(0.01)


def messages(folder: Path) -> list[str]:
    if not (folder / "cur").is_dir():  # which is made last
        return []
    return [str(message["Subject"]) for message in mailbox.Maildir(folder, create=False)]


def client(port: int) -> smtplib.SMTP:
    smtp = smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE)
    smtp.ehlo("client.example")
    return smtp


def refusal(smtp: smtplib.SMTP, *recipients: str) -> bytes:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        smtp.sendmail("anna@example.org", list(recipients), MESSAGE)
    ((_, said),) = caught.value.recipients.values()
    return said


def test_mail_for_a_local_domain_lies_in_its_users_folder(tmp_path: Path, mail: Path, users: Path) -> None:
    options = ("--spool", tmp_path / "spool", "--local", f"example.com={mail}", "--users", users)
    with serving("smtp", "tcp://127.0.0.1:0", *options) as service, client(service.ports[0]) as smtp:
        for recipient in ("carl@example.com", "Carl+lists@EXAMPLE.com", "anna@example.com", "postmaster@example.com"):
            smtp.sendmail("anna@example.org", [recipient], MESSAGE)
        assert refusal(smtp, "nobody@example.com").startswith(b"5.1.1 ")
        assert refusal(smtp, "carl@example.net").startswith(b"5.7.1 ")
        until(lambda: [len(messages(mail / name)) for name in ("carl", "anna", "postmaster")] == [2, 1, 1])
        smtp.quit()
        assert service.end(signal.SIGTERM)[0] == 0
    (message,) = mailbox.Maildir(mail / "anna")
    assert message["Return-Path"] == "<anna@example.org>"
    assert "from client.example ([127.0.0.1])" in str(message["Received"])
    assert run("queue", "list", "--spool", tmp_path / "spool").stdout.strip() in ("", "The queue is empty.")


def test_users_and_trusted_networks_send_to_others(tmp_path: Path, mail: Path, users: Path) -> None:
    there = ("--spool", tmp_path / "there", "--local", f"example.com={mail}")
    with serving("smtp", "tcp://127.0.0.1:0", *there) as host:
        onward = ("--relay-to", f"smtp://127.0.0.1:{host.ports[0]}", "--spool")
        with serving("smtp", "tcp://127.0.0.1:0", "--users", users, *onward, tmp_path / "one") as service:
            with client(service.ports[0]) as smtp:
                assert refusal(smtp, "carl@example.com").startswith(b"5.7.1 ")
                smtp.login("anna", "secret")
                smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
            until(lambda: len(messages(mail / "carl")) == 1)
        with serving("smtp", "tcp://127.0.0.1:0", "--trust", "127.0.0.1", *onward, tmp_path / "two") as service:
            with client(service.ports[0]) as smtp:
                smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
            until(lambda: len(messages(mail / "carl")) == 2)


def test_the_password_of_a_host_comes_from_netrc(tmp_path: Path, mail: Path, users: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password secret\n")
    there = ("--role", "submission", "--users", users, "--spool", tmp_path / "there", "--local", f"example.com={mail}")
    with serving("smtp", "tcp://127.0.0.1:0", *there) as host:
        url = f"smtp://anna@127.0.0.1:{host.ports[0]}"
        options = ("--spool", tmp_path / "spool", "--trust", "127.0.0.1", "--relay-to", url)
        with serving("smtp", "tcp://127.0.0.1:0", *options, NETRC=str(tmp_path / "netrc")) as service:
            with client(service.ports[0]) as smtp:
                smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
            until(lambda: messages(mail / "carl") == ["hello"])


def test_the_postmaster_of_a_relay_is_that_of_its_domain(tmp_path: Path, mail: Path) -> None:
    there = ("--spool", tmp_path / "there", "--local", f"example.com={mail}")
    with serving("smtp", "tcp://127.0.0.1:0", *there) as host:
        way = f"example.com=smtp://127.0.0.1:{host.ports[0]}"
        with serving("smtp", "tcp://127.0.0.1:0", "--spool", tmp_path / "spool", "--relay-domain", way) as service:
            with client(service.ports[0]) as smtp:
                smtp.sendmail("anna@example.org", ["postmaster"], MESSAGE)
            until(lambda: messages(mail / "postmaster") == ["hello"])


def test_who_submits_names_whole_domains(tmp_path: Path, mail: Path, users: Path) -> None:
    options = ("--role", "submission", "--users", users, "--spool", tmp_path / "spool", "--local", f"localhost={mail}")
    with serving("smtp", "tcp://127.0.0.1:0", *options) as service, client(service.ports[0]) as smtp:
        smtp.login("anna", "secret")
        assert smtp.mail("anna@sales") == (554, b"5.1.8 The sender's domain is no whole one: it has no dot.")
        assert smtp.mail("anna@localhost")[0] == 250
        assert smtp.rcpt("carl@sales")[0] == 554
        assert [smtp.rcpt(one)[0] for one in ("carl@localhost", "postmaster", "carl@example.org")] == [250, 250, 250]


@pytest.mark.parametrize("named", [True, False])
def test_lines_are_put_right_for_those_who_were_named(tmp_path: Path, mail: Path, named: bool) -> None:
    options = ("--spool", tmp_path / "spool", "--local", f"example.com={mail}")
    more = ("--normalise-from", "127.0.0.0/8") if named else ()
    with serving("smtp", "tcp://127.0.0.1:0", *options, *more) as service, client(service.ports[0]) as smtp:
        smtp.mail("anna@example.org")
        smtp.rcpt("carl@example.com")
        smtp.docmd("DATA")
        smtp.send(b"Subject: hello\n\nhow are you?\n\r\n.\r\n")
        assert smtp.getreply()[0] == (250 if named else 554)
        until(lambda: messages(mail / "carl") == ["hello"] * named)


def test_what_has_its_250_arrives_though_both_ends_were_killed(tmp_path: Path, mail: Path) -> None:
    spool = ("--spool", tmp_path / "spool", "--trust", "127.0.0.1")
    there = ("--spool", tmp_path / "there", "--local", f"example.com={mail}")
    with serving("smtp", "tcp://127.0.0.1:0", *there) as host:
        url = f"smtp://127.0.0.1:{host.ports[0]}"
    # Nobody is there: the mail waits.
    with serving("smtp", "tcp://127.0.0.1:0", *spool, "--relay-to", url) as service, client(service.ports[0]) as smtp:
        smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
    assert "carl@example.com" in run("queue", "list", "--spool", tmp_path / "spool").stdout
    with serving("smtp", f"tcp://127.0.0.1:{url.rpartition(':')[2]}", *there):
        with serving("smtp", "tcp://127.0.0.1:0", *spool, "--relay-to", url):
            run("queue", "retry", "--all", "--spool", tmp_path / "spool")
            until(lambda: messages(mail / "carl") == ["hello"])


def test_mail_that_nobody_takes_comes_back(tmp_path: Path, mail: Path) -> None:
    with serving("smtp", "tcp://127.0.0.1:0", "--spool", tmp_path / "there", "--local", f"example.com={mail}") as host:
        (mail / "anna").mkdir()
        options = ("--spool", tmp_path / "spool", "--local", f"example.org={mail}", "--trust", "127.0.0.1")
        to = ("--relay-to", f"smtp://127.0.0.1:{host.ports[0]}", "--hostname", "mail.example.org")
        with serving("smtp", "tcp://127.0.0.1:0", *options, *to) as service, client(service.ports[0]) as smtp:
            smtp.sendmail("anna@example.org", ["nobody@example.com"], MESSAGE)
            until(lambda: messages(mail / "anna") == ["Undelivered mail"])
    (bounce,) = mailbox.Maildir(mail / "anna")
    assert "5.1.1" in bounce.as_string()
    assert bounce["From"] == "Mail Delivery System <MAILER-DAEMON@mail.example.org>"


def test_who_sends_too_much_has_to_come_again(tmp_path: Path, mail: Path) -> None:
    options = ("--spool", tmp_path / "spool", "--local", f"example.com={mail}", "--messages-per-hour", 2)
    with serving("smtp", "tcp://127.0.0.1:0", *options) as service, client(service.ports[0]) as smtp:
        for _ in range(2):
            smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
        with pytest.raises(smtplib.SMTPSenderRefused, match=r"451, b'4\.7\.1 "):
            smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)


def test_what_a_mailbox_has_no_room_for_waits(tmp_path: Path, mail: Path) -> None:
    spool = ("--spool", tmp_path / "spool")
    options = (*spool, "--local", f"example.com={mail}", "--quota", "2K")

    def said() -> str:
        ids = [line.split()[0] for line in run("queue", "list", *spool).stdout.splitlines()]
        return run("queue", "show", *spool, *ids[:1]).stdout

    with serving("smtp", "tcp://127.0.0.1:0", *options) as service, client(service.ports[0]) as smtp:
        smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE + "x\r\n" * 1000)
        until(lambda: "4.2.2 The mailbox is full" in said())
        smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
        until(lambda: messages(mail / "carl") == ["hello"])


def test_mail_waits_for_mailboxes_that_are_not_there_for_a_while(tmp_path: Path, mail: Path) -> None:
    options = ("--spool", tmp_path / "spool", "--local", f"example.com={mail}")
    with serving("smtp", "tcp://127.0.0.1:0", *options) as service, client(service.ports[0]) as smtp:
        mail.rename(tmp_path / "unmounted")
        assert refusal(smtp, "carl@example.com") == b"4.3.0 The mailbox cannot be opened: please come again."
        (tmp_path / "unmounted").rename(mail)
        smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
        until(lambda: messages(mail / "carl") == ["hello"])
        smtp.quit()
        _, log = service.end(signal.SIGTERM)
    assert "the mailbox of carl@example.com cannot be opened: " in log
    assert "Traceback" not in log


def test_aliases_lead_to_others(tmp_path: Path, mail: Path) -> None:
    aliases = tmp_path / "aliases.toml"
    names = ("info", "postmaster")
    aliases.write_text("".join(f'"{name}@example.com" = ["carl@example.com"]\n' for name in names))
    options = ("--spool", tmp_path / "spool", "--local", f"example.com={mail}", "--aliases", aliases)
    with serving("smtp", "tcp://127.0.0.1:0", *options) as service, client(service.ports[0]) as smtp:
        for recipient in ("info@example.com", "postmaster@example.com", "postmaster"):
            smtp.sendmail("anna@example.org", [recipient], MESSAGE)
        until(lambda: messages(mail / "carl") == ["hello"] * 3)


def test_what_catches_all_takes_no_mail_from_those_who_have_a_mailbox(tmp_path: Path, mail: Path) -> None:
    (mail / "anna").mkdir()
    aliases = tmp_path / "aliases.toml"
    aliases.write_text('"@example.com" = ["anna@example.com"]\n')
    options = ("--spool", tmp_path / "spool", "--local", f"example.com={mail}", "--aliases", aliases)
    with serving("smtp", "tcp://127.0.0.1:0", *options) as service, client(service.ports[0]) as smtp:
        smtp.sendmail("anna@example.org", ["carl@example.com", "nobody@example.com"], MESSAGE)
        until(lambda: [len(messages(mail / name)) for name in ("anna", "carl")] == [1, 1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"a@example.org" = ["b@example.org"]\n"b@example.org" = ["a@example.org"]', "leads back to itself"),
        ('"a@example.org" = ["b example.org"]', "a@example.org: no @ in the address"),
        ('"a b@example.org" = []', "need quotes"),
        ('"a@example.org" = "b@example.org"', 'write "a@example.org" = ['),
    ],
)
def test_aliases_that_are_none_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    aliases = tmp_path / "aliases.toml"
    aliases.write_text(text)
    options = ["--spool", str(tmp_path / "spool"), "--trust", "127.0.0.1", "--aliases", str(aliases)]
    assert main(["serve", "smtp", "tcp://127.0.0.1:0", *options]) == 2
    assert f"--aliases {aliases}: " in (err := capsys.readouterr().err)
    assert said in err


def test_tls_is_begun_when_it_is_asked_for_and_from_the_start(tmp_path: Path, certificate: Path) -> None:
    tls = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    options = ("--discard", "--cert", certificate, "--require-tls")
    with serving("smtp", "tcp://127.0.0.1:0", "tls://127.0.0.1:0", *options, endpoints=2) as service:
        with client(service.ports[0]) as smtp:
            with pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.7\.0"):
                smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
            smtp._host = "localhost"  # type: ignore[attr-defined]  # who the certificate is for
            smtp.starttls(context=tls)
            smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
        with smtplib.SMTP_SSL("localhost", service.ports[1], context=tls, timeout=DEADLINE) as smtp:
            smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)


def test_a_host_whose_certificate_nobody_vouches_for_is_told_of_in_the_queue(
    tmp_path: Path, mail: Path, certificate: Path
) -> None:
    spool = tmp_path / "spool"
    with serving("smtp", "tcp://127.0.0.1:0", "--discard", "--cert", certificate) as host:
        way = ("--relay-to", f"smtp://127.0.0.1:{host.ports[0]}", "--tls-out", "required", "--trust", "127.0.0.1")
        with serving("smtp", "tcp://127.0.0.1:0", "--spool", spool, *way) as service, client(service.ports[0]) as smtp:
            smtp.sendmail("anna@example.org", ["carl@example.com"], MESSAGE)
            until(lambda: '"attempts": 1' in run("queue", "list", "--json", "--spool", spool).stdout)
        said = run("queue", "list", "--json", "--spool", spool).stdout
    assert "its certificate does not verify: unable to get local issuer certificate" in said


def test_a_second_relay_on_the_same_spool_is_refused(tmp_path: Path, mail: Path) -> None:
    options = ("--spool", tmp_path / "spool", "--local", f"example.com={mail}")
    with serving("smtp", "tcp://127.0.0.1:0", *options):
        second = run("serve", "smtp", "tcp://127.0.0.1:0", *options)
    assert second.returncode == 2
    assert "another" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_name_that_others_would_not_listen_to_is_warned_of(
    tmp_path: Path, mail: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def serve(*more: str) -> str:
        caplog.clear()
        with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends at once
            where = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            spool, local = str(tmp_path / "spool"), f"example.com={mail}"
            assert main(["serve", "smtp", where, "--spool", spool, "--local", local, *more]) == 2
        return caplog.text

    warning = "this host calls itself"
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="box"))
    assert f"{warning} box: others refuse mail from a name without a domain: --hostname" in serve()
    assert warning not in serve("--relay-to", "smtp://127.0.0.1")
    assert warning not in serve("--hostname", "box")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="mail.example.org"))
    assert warning not in serve()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--spool DIR"),
        (["--discard", "--spool", "DIR"], "not both"),
        (["--discard", "--relay-to", "smtp://127.0.0.1"], "--discard keeps nothing"),
        (["--spool", "DIR"], "nobody could send anything"),
        (["--spool", "DIR", "--relay-to", "smtp://127.0.0.1"], "nobody could send anything"),
        (["--spool", "DIR", "--local", "example.org"], "no domain and folder"),
        (["--spool", "DIR", "--local", "exa mple.org=DIR"], "a domain with characters"),
        (["--spool", "DIR", "--local", "example.org=nowhere"], "no such folder"),
        (["--spool", "DIR", "--trust", "127.0.0.1", "--relay-to", "http://127.0.0.1"], "smtp://"),
        (["--spool", "DIR", "--trust", "127.0.0.1", "--name-server", "nobody"], "--name-server is an address"),
        (["--spool", "DIR", "--trust", "127.0.0.1", "--aliases", "nowhere.toml"], "--aliases nowhere.toml"),
        (["--spool", "DIR", "--trust", "127.0.0.1", "--relay-to", "smtp://anna@127.0.0.1"], "the password is missing"),
        (["--spool", "DIR", "--relay-domain", "a.example=smtp://anna@127.0.0.1"], "anna@127.0.0.1: the password"),
        (["--spool", "DIR", "--relay-domain", "a.example=lmtp+unix:/x", "--tls-out", "required"], "a Unix socket"),
        (["--spool", "DIR", "--local", "a.example=DIR", "--relay-domain", "A.example=smtp://127.0.0.1"], "twice"),
        (["--discard", "--require-tls"], "--require-tls needs --cert"),
        (["--spool", "DIR", "--trust", "127.0.0.1", "--quota", "1M"], "--quota goes with --local"),
        (["--spool", "DIR", "--trust", "127.0.0.1", "--check-senders"], "--check-senders goes with --users"),
        (["--discard", "--check-senders"], "--discard keeps nothing"),
        (["--discard", "--messages-per-hour", "5"], "--discard keeps nothing"),
        (["--spool", "DIR", "--trust", "127.0.0.1", "--relay-ca", "ca.pem"], "--relay-ca goes with --relay-to or"),
        (["--spool", "DIR", "--relay-domain", "a.example=smtp://127.0.0.1", "--relay-ca", "none.pem"], "does not load"),
        (["--discard", "--hostname", "no name"], "hostname is a domain"),
        (["--discard", "--role", "submission"], "--role submission takes mail from users who log in"),
        (["--spool", "DIR", "--local", "a.example=DIR", "--role", "submission"], "goes with --users FILE"),
        (["--spool", "DIR", "--local", "a.example=DIR", "--retry-after", "off"], "would wait for ever"),
        (["--discard", "--role", "submission", "--users", "nowhere.toml"], "asyncnet passwd nowhere.toml NAME"),
    ],
)
def test_what_could_not_work_is_refused_at_once(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    arguments = [option.replace("DIR", str(tmp_path)) for option in options]
    try:
        status = main(["serve", "smtp", "tcp://127.0.0.1:0", *arguments])
    except SystemExit as exc:
        status = int(exc.code or 0)
    assert status == 2
    assert said in capsys.readouterr().err
