"""The landing page in a real browser, of a real cgroup whose limits change."""

from __future__ import annotations

import os

import pytest

from kernel.cgroups import MIB, NO_QUOTA, Group
from prometheus.chromium import Chromium
from prometheus.shop import free_port
from support.sidecar import Source, serving
from watch.sidecar import Sidecar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Where to keep the pictures, for a person to look at.
PICTURES = os.environ.get("CGAGENT_TEST_PICTURES")

TEXT_OF = "document.getElementById({!r}).innerText"
SIZES = {"wide": (1100, 900), "phone": (360, 740)}


def _text(browser: Chromium, element: str) -> str:
    return str(browser.evaluate(TEXT_OF.format(element)))


def test_the_page_follows_a_limit_that_changes(browser: Chromium, top: Group, sleeper: Callable[..., int]) -> None:
    top.set_quota(150_000)
    top.set_memory(256 * MIB)
    with serving(Source(pid=str(sleeper(top)))) as port:
        browser.open(f"http://127.0.0.1:{port}/")
        assert _text(browser, "GOMAXPROCS").endswith("2")
        assert _text(browser, "GOMEMLIMIT").endswith("230.4 MiB")
        assert "1.5 CPUs" in _text(browser, "cpu")
        top.set_quota(50_000)
        browser.wait_for(f"{TEXT_OF.format('GOMAXPROCS')}.endsWith('1')")
        assert "0.5 CPUs" in _text(browser, "cpu")
        assert "cpu-below-one" in _text(browser, "findings")
        top.set_memory(512 * MIB)
        browser.wait_for(f"{TEXT_OF.format('GOMEMLIMIT')}.endsWith('460.8 MiB')")
        top.set_quota(NO_QUOTA)
        browser.wait_for(f"{TEXT_OF.format('GOMAXPROCS')}.endsWith('left unset')")
    assert browser.complaints == []


def test_the_page_of_a_running_sidecar_shows_what_it_wrote(
    browser: Chromium, top: Group, sleeper: Callable[..., int], tmp_path: Path
) -> None:
    top.set_memory(256 * MIB)
    port = free_port()
    options = ["--target", str(sleeper(top)), "--web.listen-address", f"127.0.0.1:{port}"]
    agent = Sidecar(str(tmp_path), options)
    try:
        agent.ready()
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait_for(f"{TEXT_OF.format('GOMEMLIMIT')}.endsWith('230.4 MiB')")
        top.set_memory(512 * MIB)
        browser.wait_for(f"{TEXT_OF.format('GOMEMLIMIT')}.endsWith('460.8 MiB')")
        assert agent.env()[1] == 512 * MIB * 9 // 10
    finally:
        agent.kill()
    assert browser.complaints == []


def test_the_page_says_when_nobody_answers_and_goes_on_when_somebody_does(
    browser: Chromium, top: Group, sleeper: Callable[..., int]
) -> None:
    source = Source(pid=str(sleeper(top)))
    with serving(source) as port:
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait_for("document.getElementById('state').textContent.startsWith('live')")
    browser.wait_for("document.getElementById('state').textContent.startsWith('no answer since')")
    assert "CPU" in _text(browser, "cpu")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_and_can_be_read(
    browser: Chromium, top: Group, sleeper: Callable[..., int], size: str, scheme: str
) -> None:
    top.set_quota(150_000)
    top.set_memory(256 * MIB)
    inner = top.child("a-container-with-a-rather-long-name-as-runtimes-give-them-0123456789abcdef")
    with serving(Source(pid=str(sleeper(inner)))) as port:
        browser.look(*SIZES[size], scheme)
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait_for("!document.getElementById('cpu').innerText.includes('…')")
        if PICTURES:
            browser.screenshot(f"{PICTURES}/page-{size}-{scheme}.png")
        overflow = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        ratios = browser.evaluate(_CONTRAST)
    assert overflow <= 0
    # WCAG 2.1 AA asks for 4.5 of text.
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}
    assert browser.complaints == []


# The contrast of every piece of text to what is behind it (WCAG 2.1, relative luminance).
_CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(colour).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName)) continue;
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort((x, y) => y - x);
    found[text.slice(0, 40)] = (a + 0.05) / (b + 0.05);
  }
  return found;
})()"""
