"""The landing page: one HTML file, filled with the current explanation, that keeps itself current from /explain.

Whatever comes from files and processes is data in it: JSON that the page's script sets as text, and, for a browser
without scripts, `explain`'s own text, escaped.
"""

from __future__ import annotations

import json
import os

from cgagent import __version__
from cgagent.errors import CgagentError
from cgagent.metrics.http import Response
from cgagent.metrics.settings import EXPLAIN
from cgagent.report.document import document
from cgagent.report.findings import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.abc import SourceLoader

    from cgagent.metrics.collectors import Source

_NAME = "page.html"


def page(source: Source, telemetry_path: str) -> Response:
    """The page as it is now."""
    from cgagent.report.text import Style, render

    try:
        picture = source.picture()
        findings = find(picture)
        data, text, status = document(picture, findings), render(picture, findings, Style()), 200
    except CgagentError as error:
        data, text, status = {"error": error.line()}, error.line(), 503
    nonce = os.urandom(16).hex()
    values = {
        "nonce": nonce,
        "version": __version__,
        "telemetry-path": _escape(telemetry_path),
        "explain-path": EXPLAIN.removeprefix("/"),
        "text": _escape(text),
        # Only `<` could end the script element that holds it.
        "data": json.dumps(data).replace("<", "\\u003c"),
    }
    # What is filled in is never looked at for names again.
    first, *rest = _template().split("{{")
    filled = first + "".join(values[name] + after for name, _, after in (piece.partition("}}") for piece in rest))
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = (("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer"))
    return Response(filled.encode(errors="backslashreplace"), "text/html; charset=utf-8", headers, status)


def _template() -> str:
    # By the module's own loader, so that it is found in a zipped application too.
    directory = os.path.dirname(__file__)
    loader: SourceLoader = __loader__  # type: ignore[name-defined, assignment, unused-ignore]
    return loader.get_data(os.path.join(directory, _NAME)).decode()


def _escape(text: str) -> str:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text
