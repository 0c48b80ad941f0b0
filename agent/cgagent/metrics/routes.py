"""What is answered where: the metrics, the explanation, health."""

from __future__ import annotations

import json
import zlib

from cgagent.errors import CgagentError
from cgagent.metrics import landing
from cgagent.metrics.collectors import registry_of
from cgagent.metrics.exposition import accepts_gzip, choose
from cgagent.metrics.http import METHODS, HttpError, Request, Response, plain
from cgagent.metrics.settings import EXPLAIN, HEALTH, LANDING, READY
from cgagent.report.document import document
from cgagent.report.findings import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.metrics.collectors import Source
    from cgagent.metrics.guard import Guard

# The kubelet's probes send no password, and these say nothing that one would want to hide.
_OPEN_TO_ALL = (HEALTH, READY)
# Half the size at a tenth of the time of the best.
_GZIP_LEVEL = 1
_GZIP_FORMAT = 16 + zlib.MAX_WBITS  # zlib's way to say: with gzip's header and checksum


class Routes:
    """Answers requests."""

    def __init__(self, source: Source, telemetry_path: str, guard: Guard) -> None:
        self._source = source
        self._guard = guard
        self._registry = registry_of(source)
        self._telemetry_path = telemetry_path
        self._answers = {
            telemetry_path: self._metrics,
            EXPLAIN: self._explain,
            LANDING: self._landing,
            HEALTH: self._health,
            READY: self._ready,
        }

    def answer(self, request: Request) -> Response:
        """The response to `request`.

        Raises:
            HttpError: it is answered with an error.
        """
        if request.path not in _OPEN_TO_ALL:
            self._guard.check(request)
        answer = self._answers.get(request.path)
        if answer is None:
            raise HttpError(404, f"nothing here; there are {', '.join(sorted(self._answers))}")
        if request.method not in METHODS:
            allowed = ", ".join(METHODS)
            raise HttpError(405, f"only {allowed} are answered", (("Allow", allowed),))
        return answer(request)

    def _metrics(self, request: Request) -> Response:
        encode, content_type = choose(request.headers.get("accept", ""))
        return _compressed(request, Response(encode(self._registry), content_type))

    def _explain(self, request: Request) -> Response:
        try:
            picture = self._source.picture()
        except CgagentError as error:
            body = json.dumps({"error": error.line()}).encode() + b"\n"
            return Response(body, "application/json", status=503)
        body = json.dumps(document(picture, find(picture)), indent=2).encode() + b"\n"
        return _compressed(request, Response(body, "application/json"))

    def _landing(self, request: Request) -> Response:
        return _compressed(request, landing.page(self._source, self._telemetry_path))

    def _health(self, _: Request) -> Response:
        return plain("ok")

    def _ready(self, _: Request) -> Response:
        if self._source.ready():
            return plain("ok")
        return plain("not ready: the env file is not written yet", 503)


def _compressed(request: Request, response: Response) -> Response:
    """`response`, gzipped if the client takes that."""
    response.headers += (("Vary", "Accept, Accept-Encoding"),)
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        packer = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_FORMAT)
        response.body = packer.compress(response.body) + packer.flush()
        response.headers += (("Content-Encoding", "gzip"),)
    return response
