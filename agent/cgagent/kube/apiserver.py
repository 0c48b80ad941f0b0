"""Our own pod's document from the API server, as a client in a pod asks for it. Loaded only where that is wanted.

https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/: address by environment, service account token
(which is replaced before it expires), CA and namespace in a directory. http.client and ssl are 8 MiB of memory.
"""

from __future__ import annotations

import ssl
import time
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from urllib.parse import quote

from cgagent import __version__
from cgagent.errors import CgagentError
from cgagent.host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPResponse

PLACE = "/var/run/secrets/kubernetes.io/serviceaccount"
# Of a pod: etcd takes 1.5 MiB, JSON is longer than what is stored.
SIZE_LIMIT = 4 << 20
_TIMEOUT = 5.0
_FILE_LIMIT = 64 << 10
_MOUNTED = "mount a service account token there, as cgagent inject --confirm-raises does"
_HINTS = {
    401: "its token is not taken: mount one of this cluster",
    403: "its service account needs a Role that may get pods, as in k8s/components/confirm-raises",
    404: "CGAGENT_POD_NAME has to be the pod's own name (downward API, metadata.name)",
}


def get_pod(environ: Mapping[str, str], place: str = PLACE, timeout: float = _TIMEOUT) -> bytes:
    """The document of the pod that we run in, as it is now.

    Raises:
        CgagentError: it can't be had.
    """
    host, name = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("CGAGENT_POD_NAME")
    if not host:
        raise CgagentError("there is no API server to ask", "KUBERNETES_SERVICE_HOST is not set: this is no pod")
    if not name:
        raise CgagentError("the pod's name is not known", "give CGAGENT_POD_NAME by the downward API (metadata.name)")
    token, namespace = _word(f"{place}/token"), _word(f"{place}/namespace")
    address = f"{host}:{environ.get('KUBERNETES_SERVICE_PORT') or '443'}"
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
    failed = f"cannot get pod {namespace}/{name} from the API server at {address}"
    context = _trusting(f"{place}/ca.crt")
    try:
        return _get(host, address, path, token, context, timeout)
    except _AnswerError as error:
        raise CgagentError(f"{failed}: HTTP status {error.status}", _HINTS.get(error.status, "")) from None
    except ssl.SSLCertVerificationError as error:
        hint = f"{place}/ca.crt has to be the cluster's CA (ConfigMap kube-root-ca.crt)"
        raise CgagentError(f"{failed}: its certificate is not taken: {error.verify_message}", hint) from None
    except (OSError, HTTPException, ValueError) as error:
        raise CgagentError(f"{failed}: {_detail(error)}", "a NetworkPolicy has to let the pod reach it") from None


class _AnswerError(Exception):
    """Another status than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _word(file: str) -> str:
    """The only word in `file`; never shown, for it may be a secret."""
    try:
        word = Host().read(file, _FILE_LIMIT).strip()
    except CgagentError as error:
        raise CgagentError(error.message, _MOUNTED) from None
    if not word or not word.isascii() or not word.isprintable() or " " in word:
        raise CgagentError(f"{file} does not hold a single word", _MOUNTED)
    return word


def _detail(error: Exception) -> str:
    """What the system says, without its number."""
    reason = error.strerror if isinstance(error, OSError) else None
    return reason.lower() if reason else str(error) or type(error).__name__


def _trusting(ca: str) -> ssl.SSLContext:
    """What takes certificates of the CA in the file `ca`, for the name that is asked for, and no others."""
    # create_default_context() would be stricter from Python 3.13 on than many a cluster's own CA is.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise CgagentError(f"{ca} is no CA to trust: {_detail(error)}", _MOUNTED) from None
    return context


def _get(host: str, address: str, path: str, token: str, context: ssl.SSLContext, timeout: float) -> bytes:
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json",
        "User-Agent": f"cgagent/{__version__}",
        "Connection": "close",
    }
    port = int(address.rpartition(":")[2])
    deadline = time.monotonic() + 2 * timeout
    with closing(HTTPSConnection(host, port, timeout=timeout, context=context)) as connection:
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as response:  # which has the socket now
            if response.status != 200:
                raise _AnswerError(response.status)
            return _body(response, deadline)


def _body(response: HTTPResponse, deadline: float) -> bytes:
    """The whole body: within its bound, and in time however slowly it comes."""
    body = bytearray()
    while piece := response.read1(1 << 16):
        body += piece
        if len(body) > SIZE_LIMIT:
            raise ValueError(f"its answer is longer than {SIZE_LIMIT >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError("its answer takes too long")
    if response.length:  # what Content-Length has promised and did not come
        raise ValueError("its answer is cut off")
    return bytes(body)
