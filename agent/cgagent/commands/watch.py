"""`cgagent watch`: the sidecar that keeps the env file true, has hooks run, and serves metrics."""

from __future__ import annotations

import os

from cgagent.commands.options import TWINS_HELP, add_limits, add_policy
from cgagent.envfile import FORMATS
from cgagent.errors import UsageError
from cgagent.host import Host
from cgagent.metrics.counters import Counters
from cgagent.watch.agent import Agent
from cgagent.watch.config import Configuration, loaded
from cgagent.watch.log import FORMATS as LOG_FORMATS
from cgagent.watch.log import LEVELS, Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.metrics.server import Server
    from cgagent.parser import Arguments, Parser
    from cgagent.watch.settings import Settings

DESCRIPTION = "Follow the limits as they change: keep the env file current, run hooks, serve metrics and health."
EPILOG = f"""\
{TWINS_HELP}
Every option has a key in the config file too: cgagent config example. The order is option, environment, file.

examples:
  cgagent watch --env-file /run/cgagent/go.env
  cgagent watch --env-file /run/cgagent/go.env --web.listen-address :9101
  cgagent watch --env-file go.env --target auto --hook signal:HUP      a pod with shareProcessNamespace
  cgagent watch --env-file go.env --target auto --limits-dir /etc/podinfo   lower the values ahead of a resize
  cgagent watch --env-file go.env --limits-dir /etc/podinfo --limits-from given --confirm-raises app
  cgagent watch --config /etc/cgagent/watch.yaml

SIGTERM and SIGINT end it, SIGHUP reloads the config file; it is also reloaded when it changes.
exit codes: 0 ended by a signal; 79 to 125 by a hook; 1 nothing can be read, or the process of --target PID has ended;
2 wrong usage; 3 no limit found at the start and --require-limits given; 78 a bad config file.
"""


def configure(parser: Parser) -> None:
    """Add the command's options to `parser`."""
    parser.add_argument("--env-file", metavar="PATH", help="the file to keep current")
    parser.add_argument("--format", metavar="|".join(FORMATS), help="as for write (default dotenv)")
    parser.add_argument("--merge", action="store_const", const="true", help="keep the other lines of an existing file")
    parser.add_argument("--mode", metavar="OCTAL", help="permissions of the file (default 0644)")
    parser.add_argument("--config", metavar="FILE", help="settings and hooks in YAML; see cgagent config example")
    _add_target(parser)
    _add_following(parser)
    _add_serving(parser)
    add_policy(parser)
    add_limits(parser)


def _add_target(parser: Parser) -> None:
    group = parser.add_argument_group("target")
    group.add_argument(
        "--target",
        metavar="SELF|PID|auto",
        help="whose limits: our own cgroup's (default), a process's, or in a pod with a shared process namespace "
        "the application's, which is found again after a restart",
    )
    group.add_argument("--target-name", metavar="NAME", help="with auto, the process of this name (comm)")
    group.add_argument("--target-exe", metavar="PATH", help="with auto, the process that runs this file, or its name")


def _add_following(parser: Parser) -> None:
    group = parser.add_argument_group("following")
    group.add_argument("--settle", metavar="TIME", help="wait so long for the rest of a burst (default 50ms)")
    group.add_argument("--poll", metavar="TIME", help="look anyway after this time (default 30s)")
    group.add_argument(
        "--hook",
        metavar="KIND:VALUE",
        action="append",
        help="what to do when the values have changed, repeatable: signal:HUP (to the target), "
        "exec:/path/to/program, http://host:port/path (POST of JSON), tune (GOMEMLIMIT of the running target), "
        "exit:CODE (end with it)",
    )
    group.add_argument(
        "--confirm-raises",
        metavar="CONTAINER",
        help="take a higher limit of --limits-dir only when the API server says that this container of the pod has it; "
        "CGAGENT_POD_NAME, CGAGENT_CPU_LIMIT_MILLICORES and CGAGENT_MEMORY_LIMIT_BYTES are wanted by the downward API",
    )
    group.add_argument(
        "--state-dir", metavar="DIR", help="keep counters here across restarts: limit changes, OOM kills"
    )


def _add_serving(parser: Parser) -> None:
    group = parser.add_argument_group("metrics, log and paths")
    group.add_argument(
        "--web.listen-address",
        dest="web_listen_address",
        metavar="ADDR:PORT",
        action="append",
        help="serve /metrics, /healthz, /readyz and / here, repeatable; without it nothing is served",
    )
    group.add_argument(
        "--web.telemetry-path", dest="web_telemetry_path", metavar="PATH", help="of the metrics (default /metrics)"
    )
    group.add_argument(
        "--web.max-requests", dest="web_max_requests", metavar="N", help="connections at a time (default 40)"
    )
    group.add_argument("--web.config.file", dest="web_config_file", metavar="FILE", help="TLS and basic auth")
    for part, place in (("procfs", "/proc"), ("sysfs", "/sys"), ("rootfs", "/")):
        text = f"where the machine's {place} is mounted (default {place})"
        group.add_argument(f"--path.{part}", dest=f"path_{part}", metavar="DIR", help=text)
    group.add_argument("--log.level", dest="log_level", metavar="|".join(LEVELS), help="least to log (default info)")
    group.add_argument("--log.format", dest="log_format", metavar="|".join(LOG_FORMATS), help="default logfmt")


def run(arguments: Arguments) -> int:
    """Follow until told to stop; return the exit code."""
    path = arguments.config if arguments.config is not None else os.environ.get("CGAGENT_CONFIG") or None
    configuration = Configuration(arguments, os.environ, path)
    settings = configuration.settings
    if settings.env_file is None and not settings.web.listen_addresses and not settings.hooks:
        raise UsageError("there is nothing to do", "give --env-file, --web.listen-address or --hook")
    if settings.env_file is not None and os.path.isdir(settings.env_file):
        raise UsageError(f"--env-file: {settings.env_file} is a directory", "name a file in it")
    counters, log = Counters(), Log(settings.log_format, settings.log_level)
    if path is not None:
        loaded(counters)
    agent = Agent(configuration, counters, Host(places=settings.places), log)
    server = _serve(agent, settings, log) if settings.web.listen_addresses else None
    try:
        return agent.run()
    finally:
        if server is not None:
            server.close()


def _serve(agent: Agent, settings: Settings, log: Log) -> Server:
    # The server and prometheus_client are loaded for those who want metrics.
    from cgagent.metrics.server import serve
    from cgagent.metrics.settings import Settings as Web

    web = settings.web
    server = serve(agent, Web(web.listen_addresses, web.telemetry_path, web.max_requests, web.config_file), log.warning)
    log.info("serving", addresses=",".join(server.addresses), path=web.telemetry_path)
    return server
