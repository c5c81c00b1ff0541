"""`asyncnet queue list|show|retry|hold|release|remove --spool DIR`: look into a relay's queue, and change it.

`add_parser` mounts the command; `asyncnet.cli.queue_commands`, which needs the database, is imported when it runs.
"""

from __future__ import annotations

import argparse

from asyncnet.cli.kinds import load
from asyncnet.cli.options import count

_EPILOG = """\
The relay may run meanwhile, and notices within a second. What is being sent at that moment is sent.

Exit status: 0 if all went well, 1 if an ID is no message, or one that this cannot be done to, 2 for wrong options and
what is no queue, 130 after Ctrl-C.

examples:
  asyncnet queue list --spool /var/spool/asyncnet
  asyncnet queue show --spool /var/spool/asyncnet 65D8A0C4F21B3E7
  asyncnet queue retry --spool /var/spool/asyncnet --to example.org
  asyncnet queue list --spool /var/spool/asyncnet --json | jq -r 'select(.damage).id'
"""

_ACTIONS = {
    "list": "tell of each message in a line, the oldest first",
    "show": "tell all that is known of messages",
    "retry": "try messages now; those that were set aside as damaged, too",
    "hold": "have messages wait until they are released",
    "release": "let held messages go",
    "remove": "remove messages for ever; nobody is told",
}

_TO = "messages for this domain, or by this host, as `show` calls it"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Mount `queue` under the command."""
    parser = commands.add_parser(
        "queue",
        description="Look into a relay's queue, and change it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    for name, help in _ACTIONS.items():
        action = actions.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
        action.add_argument("--spool", metavar="DIR", required=True, help="the folder of the queue")
        if name != "list":
            action.add_argument("ids", metavar="ID", nargs="*", help="a message, as `list` calls it")
        if name not in ("list", "show"):
            action.add_argument("--all", action="store_true", help="all messages")
        if name != "show":
            action.add_argument("--to", metavar="DOMAIN", help=_TO)
        if name in ("list", "show"):
            action.add_argument("--json", action="store_true", help="a JSON object a line")
        if name == "list":
            action.add_argument("--limit", metavar="N", type=count, help="tell of so many at most")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it. Returns the exit status; raises ConfigurationError for what is wrong."""
    status: int = load("asyncnet.cli.queue_commands:run")(args)
    return status
