"""Certificates and keys in PEM files: loaded without asking anybody, and seen to have been replaced."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    Stamps = tuple[tuple[int, ...], ...]


def load(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Load a certificate, with its chain, and its key into `context`.

    Raises:
        OSError: one can't be read, or is no certificate or key (ssl.SSLError).
        ValueError: the key is encrypted.
    """
    context.load_cert_chain(certificate, key, _no_passphrase)


def reason(error: OSError | ValueError) -> str:
    """Why `load` failed, for a person."""
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return "the key is another certificate's"
    if hasattr(error, "library"):  # ssl.SSLError, whose own words are those of OpenSSL's source
        return "one of them is no certificate or key"
    return (getattr(error, "strerror", None) or str(error)).lower()


def _no_passphrase() -> str:
    """Said to OpenSSL instead of letting it ask at the terminal for an encrypted key's."""
    raise ValueError("the key is encrypted")


def stamps(files: Iterable[str]) -> Stamps:
    """What changes when one of `files` does, or is replaced: through links, as the kubelet swaps a Secret's."""
    return tuple(map(_stamp, files))


def _stamp(file: str) -> tuple[int, ...]:
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
