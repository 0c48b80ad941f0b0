"""Requests as clients write them, and answers as they read them."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgagent.metrics.http import HttpError, Request, parse_request, plain, serialize


def _request(*lines: str) -> Request:
    return parse_request("\r\n".join(lines).encode("latin-1"))


def test_a_request_of_prometheus() -> None:
    request = _request("GET /metrics HTTP/1.1", "Host: localhost:9100", "Accept-Encoding: gzip", "User-Agent: x:y")
    assert (request.method, request.path, request.keep_alive) == ("GET", "/metrics", True)
    assert request.headers == {"host": "localhost:9100", "accept-encoding": "gzip", "user-agent": "x:y"}


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/metrics?collect[]=cpu", "/metrics"),
        ("/a?b?c", "/a"),
        ("http://localhost:9100/metrics", "/metrics"),
        ("http://localhost", "/"),
        ("*", "*"),
        ("//metrics", "//metrics"),
        ("/%6detrics", "/%6detrics"),
    ],
)
def test_the_path_is_the_target_without_query_and_host(target: str, path: str) -> None:
    assert _request(f"GET {target} HTTP/1.1").path == path


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (["GET / HTTP/1.1"], True),
        (["GET / HTTP/1.1", "Connection: close"], False),
        (["GET / HTTP/1.1", "Connection: Close, TE"], False),
        (["GET / HTTP/1.0"], False),
        (["GET / HTTP/1.0", "Connection: Keep-Alive"], True),
        (["GET / HTTP/1.1", "Content-Length: 0"], True),
    ],
)
def test_a_connection_is_kept_as_the_version_and_the_client_say(lines: list[str], keep_alive: bool) -> None:
    assert _request(*lines).keep_alive is keep_alive


@pytest.mark.parametrize("header", ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 0, 5"])
def test_after_a_body_the_connection_ends_lest_the_body_be_taken_for_a_request(header: str) -> None:
    assert _request("GET / HTTP/1.1", header).keep_alive is False


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["GET"], 400),
        (["GET /metrics"], 400),
        (["GET /a b HTTP/1.1"], 400),
        (["\x16\x03\x01 x y"], 400),
        (["PRI * HTTP/2.0"], 505),
        (["GET / HTTP/1.1", "no colon"], 400),
        (["GET / HTTP/1.1", "Host : x"], 400),
        (["GET / HTTP/1.1", " folded: x"], 400),
        (["GET / HTTP/1.1", ": x"], 400),
    ],
)
def test_what_is_no_http_is_refused(lines: list[str], status: int) -> None:
    with pytest.raises(HttpError) as caught:
        _request(*lines)
    assert caught.value.status == status


def test_an_answer_is_one_piece_with_its_length() -> None:
    data = serialize(plain("fine"), "GET", keep_alive=True)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert "Content-Length: 5" in lines
    assert "Connection: keep-alive" in lines
    assert body == b"fine\n"


def test_the_answer_to_head_has_the_length_and_no_body() -> None:
    data = serialize(plain("fine"), "HEAD", keep_alive=False)
    assert b"Content-Length: 5\r\n" in data
    assert data.endswith(b"\r\n\r\n")


def test_the_date_is_in_the_form_that_http_wants() -> None:
    head = serialize(plain(""), "GET", keep_alive=False).decode()
    date = next(line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Date: "))
    assert email.utils.format_datetime(email.utils.parsedate_to_datetime(date), usegmt=True) == date


def test_a_configured_header_takes_the_place_of_our_own() -> None:
    head = serialize(plain(""), "GET", False, (("x-content-type-options", "other"), ("X-Frame-Options", "deny")))
    assert head.lower().count(b"x-content-type-options") == 1
    assert b"x-content-type-options: other\r\n" in head
    assert b"X-Frame-Options: deny\r\n" in head


@given(
    st.one_of(st.binary(), st.text("GET /HTP1.\r\n: \t\x00aZé", max_size=200).map(lambda text: text.encode("utf-8")))
)
def test_whatever_comes_is_a_request_or_an_error(head: bytes) -> None:
    try:
        request = parse_request(head)
    except HttpError:
        return
    assert "\r" not in request.method + request.path
