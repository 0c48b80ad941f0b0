"""`cgagent write`: detect, decide, and write the env file."""

from __future__ import annotations

import os
import sys

from cgagent import envfile
from cgagent.commands.options import TWINS_HELP, Settled, add_limits, add_policy, say
from cgagent.errors import CgagentError, UsageError
from cgagent.texts import Texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.parser import Arguments, Parser

DESCRIPTION = "Detect the limits that bind here, decide GOMAXPROCS and GOMEMLIMIT, and write them to an env file."
EPILOG = f"""\
{TWINS_HELP}

examples:
  cgagent write --env-file /run/cgagent/go.env      then: sh -c 'set -a; . /run/cgagent/go.env; exec "$@"' sh ./orders
  cgagent write --env-file - --format shell         print it
  cgagent write --env-file go.env --format docker   for docker run --env-file go.env
  cgagent write --env-file go.env --cpu-limit 1500m --memory-limit 512Mi

exit codes: 0 written, or unchanged; 1 a limit can't be known, or the file can't be written (the old one stays);
2 wrong usage; 3 no limit found and --require-limits given.
"""


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--env-file", metavar="PATH", help="the file to write; - prints it")
    parser.add_argument(
        "--format",
        metavar="|".join(envfile.FORMATS),
        help="dotenv (default: for a shell's ., systemd, fileKeyRef), docker (no quotes), shell (export), json",
    )
    parser.add_argument("--merge", action="store_true", help="keep the other lines of an existing file")
    parser.add_argument("--mode", metavar="OCTAL", help="permissions of the file (default 0644)")
    parser.add_argument("--quiet", action="store_true", help="say nothing when all is well")
    parser.add_argument(
        "--root",
        metavar="DIR|FILE",
        help="read a captured or mounted tree, or a file of capture, instead of this machine",
    )
    parser.add_argument("--pid", metavar="N", help="decide for a running process")
    parser.add_argument("--binary", metavar="PATH", help="the Go program that the file is for: see --gomaxprocs")
    add_policy(parser)
    add_limits(parser)


def run(arguments: Arguments) -> int:
    """Write the file; return the exit code."""
    texts = Texts(arguments, os.environ)
    path = texts.text("env_file")
    if not path:
        raise UsageError("--env-file is missing", "name the file to write, or - to print")
    if os.path.isdir(path):
        raise UsageError(f"--env-file: {path} is a directory", "name a file in it")
    style = texts.choice("format", envfile.FORMATS)
    if arguments.merge and style == "json":
        raise UsageError("--merge does not go with --format json", "choose dotenv, docker or shell")
    if arguments.merge and path == "-":
        raise UsageError("--merge does not go with --env-file -", "name the file whose lines are to be kept")
    mode = None if arguments.mode is None else envfile.parse_mode(arguments.mode, "--mode")
    if arguments.binary and not os.path.exists(arguments.binary):
        raise CgagentError(f"--binary: there is no {arguments.binary}", "name the Go program that the file is for")
    binary = arguments.binary or (f"/proc/{arguments.pid}/exe" if arguments.pid and not arguments.root else None)
    settled = Settled(arguments, root=arguments.root, pid=arguments.pid, binary=binary)
    code = settled.check("write")
    if code:
        return code
    env = settled.decision.env()
    text = envfile.render(env, envfile.header(settled.limits), style)
    if path == "-":
        sys.stdout.write(text)
        return 0
    if arguments.merge:
        text = envfile.merge(text, envfile.read(path) or "", style)
    written = envfile.write(path, text, mode)
    if not arguments.quiet:
        values = " ".join(f"{name}={value}" for name, value in env.items())
        say("write", f"{path} {'written' if written else 'unchanged'}: {values or 'no variables'}")
    return 0
