"""The two text formats of a page of metrics, and which of them a client asks for.

The library has both encoders: that of 0.0.4 in the module that holds its servers, that of OpenMetrics with room for
exemplars and histograms, at 2.5 times the time of ours. The tests compare ours with them byte by byte.
"""

from __future__ import annotations

from functools import lru_cache

from cgagent.metrics.client import floatToGoString

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cgagent.metrics.client import CollectorRegistry

    Encoder = Callable[[CollectorRegistry], bytes]

# Prometheus 3 fails a scrape whose Content-Type it can't parse.
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# 2.5 to 2.50 ask for 0.0.1 too; what changed up to 1.0.0 does not occur here.
_OPENMETRICS_VERSIONS = ("", "1.0.0", "0.0.1")
# Headers, and what they mean: each scraper sends the same again and again.
_REMEMBERED = 16
# Pieces of text that are the same in every page: more than there are metrics in both formats.
_TEXTS = 256


@lru_cache(_REMEMBERED)
def choose(accept: str) -> tuple[Encoder, str]:
    """The encoder and Content-Type for an Accept header: OpenMetrics where it is asked for and not disliked."""
    wanted = {TEXT: -1.0, OPENMETRICS: -1.0}
    for media, parameters in _ranges(accept):
        quality = _quality(parameters.get("q", "1"))
        if media == "application/openmetrics-text" and parameters.get("version", "") in _OPENMETRICS_VERSIONS:
            wanted[OPENMETRICS] = max(wanted[OPENMETRICS], quality)
        elif media == "text/plain":
            wanted[TEXT] = max(wanted[TEXT], quality)
    if wanted[OPENMETRICS] > 0 and wanted[OPENMETRICS] >= wanted[TEXT]:
        return encode_openmetrics, OPENMETRICS
    return encode_text, TEXT


@lru_cache(_REMEMBERED)
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header asks for gzip."""
    return any(
        coding == "gzip" and _quality(parameters.get("q", "1")) > 0 for coding, parameters in _ranges(accept_encoding)
    )


def _ranges(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The elements of an Accept header, each with its parameters."""
    for element in header.split(","):
        name, *rest = element.split(";")
        pairs = (parameter.strip().lower().partition("=") for parameter in rest)
        yield name.strip().lower(), {key: value for key, _, value in pairs}


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def encode_text(registry: CollectorRegistry) -> bytes:
    """The page in Prometheus' own text format 0.0.4."""
    return "".join(_lines(registry, "_total", _escape_text)).encode()


def encode_openmetrics(registry: CollectorRegistry) -> bytes:
    """The page in OpenMetrics 1.0: a counter's family is named without `_total`, and the end is marked."""
    return ("".join(_lines(registry, "", _escape)) + "# EOF\n").encode()


def _lines(registry: CollectorRegistry, counter_suffix: str, escape_help: Callable[[str], str]) -> Iterator[str]:
    for family in registry.collect():
        name = family.name + counter_suffix if family.type == "counter" else family.name
        yield _head(name, family.type, family.documentation, escape_help)
        for sample in family.samples:
            labels = _labels(sample.labels) if sample.labels else ""
            yield f"{sample.name}{labels} {_number(sample.value)}\n"


@lru_cache(_TEXTS)
def _head(name: str, kind: str, text: str, escape_help: Callable[[str], str]) -> str:
    return f"# HELP {name} {escape_help(text)}\n# TYPE {name} {kind}\n"


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join([_label(key, value) for key, value in sorted(labels.items())]) + "}"


@lru_cache(_TEXTS)
def _label(key: str, value: str) -> str:
    return f'{key}="{_escape(value)}"'


def _number(value: float) -> str:
    # Where the library's way to write it is Python's too, at half the time.
    return repr(float(value)) if -1e6 < value < 1e6 else floatToGoString(value)


def _escape_text(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape(text: str) -> str:
    return _escape_text(text).replace('"', r"\"")
