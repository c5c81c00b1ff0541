"""The commands about the session itself: login, TLS, and what the server tells about itself.

RFC 959 sections 4.1.1 and 4.1.3, RFC 2389 (FEAT, OPTS), RFC 2640 (LANG, UTF8), RFC 4217 (AUTH, PBSZ, PROT).
"""

from __future__ import annotations

import trio

from asyncnet.auth.guard import passwords_allowed
from asyncnet.errors import ConfigurationError
from asyncnet.ftp.accounts import Account
from asyncnet.ftp.control import Control, logger
from asyncnet.ftp.declarations import COMMANDS, SITE_COMMANDS, Argument, command
from asyncnet.ftp.events import LoggedIn, tell
from asyncnet.ftp.session import FACTS, Phase, Session
from asyncnet.ftp.storage import HashAlgorithm
from asyncnet.ftp.wire import show
from asyncnet.replies import Reply

ANONYMOUS = frozenset({"anonymous", "ftp"})
"""The names of nobody in particular (RFC 1635)."""


@command("USER", argument=Argument.REQUIRED, help="name", before_login=True)
async def user(control: Control, argument: str) -> Reply:
    control.log_out()
    server = control.server
    control.session.name_given(argument)
    if server.tls_for_login and control.stream.tls is None:
        control.session.log_in_failed()
        return Reply.of(530, "Logins need TLS here: AUTH TLS comes first.")
    if is_anonymous(control):
        return Reply.of(331, "Any password will do: an address of mail is the custom.")
    if server.users is None:
        control.session.log_in_failed()
        return Reply.of(530, "Only anonymous users are served here.")
    if not passwords_allowed(control.stream, insecure_auth=server.insecure_auth):
        control.session.log_in_failed()
        return Reply.of(530, "A password may not pass in the clear: AUTH TLS comes first.")
    return Reply.of(331, "The password, please.")


def is_anonymous(control: Control) -> bool:
    """Whether the name that was given is nobody's in particular, and such are served."""
    return control.server.anonymous and control.session.name.lower() in ANONYMOUS


@command("PASS", argument=Argument.OPTIONAL, help="password", before_login=True, is_secret=True)
async def password(control: Control, argument: str) -> Reply | None:
    account = await _account(control, argument)
    if account is None:
        control.session.log_in_failed()
        if control.logins.exhausted:
            control.is_ending = True
            return Reply.of(421, "Too many logins have failed.")
        return Reply.of(530, "The login failed.")
    if not control.server.accounts.enter(account):
        control.is_ending = True
        return Reply.of(421, "This user has as many connections as it may have.")
    control.log_in(account)
    logger.info("%s logged in from %s", account.name, control.stream.peer)
    await tell(control.server.events.on_login, LoggedIn(account.name, control.stream.peer, account.is_anonymous))
    return Reply.of(230, "Logged in.")


async def _account(control: Control, password: str) -> Account | None:
    server, peer, name = control.server, control.stream.peer, control.session.name
    if is_anonymous(control):
        return server.accounts.anonymous
    users = server.users
    if users is None:
        return None
    identity = await control.logins.attempt(lambda: users.verify(name, password, peer=peer))
    if identity is None:
        return None
    try:
        return await server.accounts.account(identity)
    except ConfigurationError as exc:
        logger.error("nobody can log in: %s", exc)
        return None


@command("ACCT", argument=Argument.OPTIONAL, help="account", before_login=True)
async def account(control: Control, argument: str) -> Reply:
    return Reply.of(202, "There are no accounts beside users.")


@command("REIN", argument=Argument.NONE, help="(forget the login and everything else)", before_login=True)
async def reinitialize(control: Control, argument: str) -> Reply:
    control.log_out()
    control.session = control.session.restarted()
    return Reply.of(220, control.server.greeting)


@command("QUIT", argument=Argument.NONE, help="(end)", before_login=True)
async def quit(control: Control, argument: str) -> Reply:
    control.is_ending = True
    return Reply.of(221, "Goodbye.")


def _auth_feature(control: Control) -> str | None:
    return None if control.server.tls is None else "AUTH TLS"


@command("AUTH", argument=Argument.REQUIRED, help="TLS", feature=_auth_feature, before_login=True)
async def auth(control: Control, argument: str) -> Reply | None:
    server, stream = control.server, control.stream
    if argument.upper() not in ("TLS", "TLS-C", "SSL", "TLS-P"):
        return Reply.of(504, "AUTH TLS is the only one.")
    if server.tls is None:
        return Reply.of(502, "There is no TLS here.")
    if stream.tls is not None:
        return Reply.of(503, "TLS has begun already.")
    tls = server.tls
    if server.session_required:
        try:
            tls = await trio.to_thread.run_sync(tls.copy)
        except ConfigurationError as exc:
            logger.error("%s", exc)
            return Reply.of(431, "TLS is not available at the moment.")
    await control.say(Reply.of(234, "TLS begins now."))
    try:
        await stream.start_tls(tls, server_side=True)
    except OSError as exc:
        raise trio.BrokenResourceError(f"the TLS handshake failed: {exc}") from exc
    control.log_out()
    control.session = Session(secured=True, protected=argument.upper() == "TLS-P")  # the P is that of PROT P
    return None


@command(
    "PBSZ", argument=Argument.REQUIRED, help="0", feature=lambda control: _if_tls(control, "PBSZ"), before_login=True
)
async def protection_buffer_size(control: Control, argument: str) -> Reply:
    if not (argument.isascii() and argument.isdigit()):
        return Reply.of(501, "PBSZ takes a number: 0.")
    control.session.buffer_size_set = True
    return Reply.of(200, "PBSZ=0")


@command(
    "PROT",
    argument=Argument.REQUIRED,
    help="P | C",
    feature=lambda control: _if_tls(control, "PROT"),
    before_login=True,
)
async def protection(control: Control, argument: str) -> Reply:
    match argument.upper():
        case "P":
            control.session.protected = True
            return Reply.of(200, "Data connections have TLS.")
        case "C" if control.server.tls_for_data:
            return Reply.of(534, "Data connections need TLS here.")
        case "C":
            control.session.protected = False
            return Reply.of(200, "Data connections are in the clear.")
        case "S" | "E":
            return Reply.of(536, "TLS has the levels P and C alone.")
    return Reply.of(504, "PROT takes P or C.")


def _if_tls(control: Control, line: str) -> str | None:
    return line if control.server.tls is not None or control.stream.tls is not None else None


@command("CCC", argument=Argument.NONE, help="(not here)", before_login=True)
async def clear_command_channel(control: Control, argument: str) -> Reply:
    return Reply.of(534, "What began in TLS stays in it.")


@command("FEAT", argument=Argument.NONE, help="(list the extensions)", before_login=True)
async def features(control: Control, argument: str) -> Reply:
    lines = []
    for declaration in COMMANDS.values():
        feature = declaration.feature
        line = feature(control) if callable(feature) else feature
        lines += [] if line is None else line.split("\n")
    return Reply.of(211, "Extensions:", *sorted([*lines, "UTF8", "TVFS"]), "End")


@command("OPTS", argument=Argument.REQUIRED, help="UTF8 ON | MLST facts | HASH algorithm", before_login=True)
async def options(control: Control, argument: str) -> Reply:
    name, _, value = argument.partition(" ")
    match name.upper():
        case "UTF8" if value.upper() in ("", "ON"):
            return Reply.of(200, "Always UTF-8.")
        case "UTF8" if value.upper() == "OFF":
            return Reply.of(504, "There is nothing but UTF-8.")
        case "MLST":
            wanted = {fact.strip().lower() for fact in value.split(";")}
            control.session.facts = tuple(fact for fact in FACTS if fact in wanted)
            return Reply.of(200, "MLST OPTS " + "".join(f"{_spelled(fact)};" for fact in control.session.facts))
        case "HASH":
            algorithms = {algorithm.value: algorithm for algorithm in HashAlgorithm}
            if value:
                chosen = algorithms.get(value.upper())
                if chosen is None:
                    return Reply.of(501, f"The algorithms are {', '.join(algorithms)}.")
                control.session.hash_algorithm = chosen
            return Reply.of(200, control.session.hash_algorithm.value)
    return Reply.of(501, "There is no such option.")


def _spelled(fact: str) -> str:
    return "UNIX.mode" if fact == "unix.mode" else fact.capitalize()


def facts_feature(control: Control) -> str:
    """The line of MLST in FEAT (RFC 3659 section 7.8)."""
    return "MLST " + "".join(f"{_spelled(fact)}{'*' if fact in control.session.facts else ''};" for fact in FACTS)


@command("HELP", argument=Argument.OPTIONAL, help="[command]", before_login=True)
async def help(control: Control, argument: str) -> Reply:
    verb, _, rest = argument.upper().partition(" ")
    table = SITE_COMMANDS if verb == "SITE" and rest else COMMANDS
    if verb:
        declaration = table.get(rest or verb)
        if declaration is None:
            return Reply.of(501, "No such command: HELP lists those that there are.")
        site = "SITE " if table is SITE_COMMANDS else ""
        return Reply.of(214, f"{site}{declaration.verb} {declaration.help}")
    return Reply.of(214, "The commands are:", *_columns(sorted(COMMANDS)), "HELP COMMAND tells more.")


def _columns(words: list[str]) -> list[str]:
    return [" ".join(f"{word:<7}" for word in words[start : start + 9]).rstrip() for start in range(0, len(words), 9)]


@command("NOOP", argument=Argument.OPTIONAL, help="(nothing)", before_login=True, during_transfer=True)
async def noop(control: Control, argument: str) -> Reply:
    return Reply.of(200, "Still here.")


@command("SYST", argument=Argument.NONE, help="(which system)", before_login=True)
async def system(control: Control, argument: str) -> Reply:
    return Reply.of(215, "UNIX Type: L8")


@command("CLNT", argument=Argument.OPTIONAL, help="name of the client", feature="CLNT", before_login=True)
async def client_name(control: Control, argument: str) -> Reply:
    return Reply.of(200, "Noted.")


@command("LANG", argument=Argument.OPTIONAL, help="EN", feature="LANG EN*", before_login=True)
async def language(control: Control, argument: str) -> Reply:
    if argument.upper() in ("", "EN") or argument.upper().startswith("EN-"):
        return Reply.of(200, "English it is.")
    return Reply.of(504, "English is the only language here.")


@command("SITE", argument=Argument.REQUIRED, help="CHMOD mode path | HELP")
async def site(control: Control, argument: str) -> Reply | None:
    verb, _, rest = argument.partition(" ")
    declaration = SITE_COMMANDS.get(verb.upper())
    if declaration is None:
        return Reply.of(504, "No such command: SITE HELP lists those that there are.")
    if not rest and declaration.argument is Argument.REQUIRED:
        return Reply.of(501, f"Something is missing: SITE {declaration.verb} {declaration.help}")
    if declaration.permission is not None and not control.may(declaration.permission):
        return Reply.of(550, "Permission denied.")
    return await declaration.run(control, rest)


@command("HELP", argument=Argument.OPTIONAL, help="[command]", table=SITE_COMMANDS)
async def site_help(control: Control, argument: str) -> Reply:
    lines = [f"SITE {one.verb} {one.help}" for one in SITE_COMMANDS.values()]
    return Reply.of(214, "The commands are:", *lines, "End")


def session_status(control: Control) -> Reply:
    """What STAT says without an argument: of the transfer if one runs, else of the session."""
    transfer, session = control.transfer, control.session
    if transfer is not None:
        seconds = trio.current_time() - transfer.started
        return Reply.of(
            213, f"{transfer.verb} {show(transfer.path)}: {transfer.moved} bytes so far, in {seconds:.0f} s."
        )
    who = control.user if session.phase is Phase.LOGGED_IN else "nobody"
    lines = [
        f"From {control.stream.peer}, {'in TLS' if session.secured else 'in the clear'}",
        f"Logged in: {who}",
        f"TYPE {'A' if session.is_ascii else 'I'}, MODE S, STRU F",
        f"Data connections are {'in TLS' if session.protected else 'in the clear'}",
    ]
    return Reply.of(211, "The session:", *lines, "End")
