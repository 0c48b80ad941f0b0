"""The webhook's certificate: loaded again when its files change, as a Secret's volume does when it is renewed."""

from __future__ import annotations

import ssl
import threading

from cgagent import pem
from cgagent.errors import CgagentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HINT = "give a certificate and its key, in PEM format"


class Certificate:
    """What new connections are made with.

    Attributes:
        reloads, failures: how often it was loaded again, and could not be.
    """

    def __init__(self, certificate: str, key: str, complain: Callable[[str], None]) -> None:
        """Load both files; `complain` is told where they can't be loaded again later.

        Raises:
            CgagentError: they can't be used.
        """
        self.reloads = 0
        self.failures = 0
        self._files = (certificate, key)
        self._complain = complain
        self._changing = threading.Lock()
        self._signature = pem.stamps(self._files)
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """The context in force. A pair that can't be used leaves the one before in force."""
        signature = pem.stamps(self._files)
        if signature != self._signature and self._changing.acquire(blocking=False):
            try:
                # What is half written now will have changed again at the next connection.
                self._signature = signature
                self._context = self._load()
                self.reloads += 1
            except CgagentError as error:
                self.failures += 1
                self._complain(f"{error.message}: going on with the one before")
            finally:
                self._changing.release()
        return self._context

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            pem.load(context, *self._files)
        except (OSError, ValueError) as error:
            raise CgagentError(f"{' and '.join(self._files)} can't be used: {pem.reason(error)}", _HINT) from None
        return context
