"""The site: it builds without a warning, and a browser that reads it asks no other machine for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.docs.site import relinked
from tests.kit.process import ROOT

OUTSIDE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(|@import\s*(?:url\()?)\s*['\"]?((?:https?:)?//[^'\")\s;]+)", re.IGNORECASE)
FETCHED = {"src", "srcset", "poster", "data"}
"""Attributes whose address a browser fetches by itself."""
NOT_FETCHED = {"canonical", "next", "prev", "alternate", "license"}
"""Relations of `<link>` that are for people and crawlers."""


class Page(HTMLParser):
    """Collects the addresses that a browser fetches to show a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.found += IN_STYLE.findall(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "link" and not set((given.get("rel") or "").split()) & NOT_FETCHED:
            self.found.append(given.get("href") or "")
        self.found += [value or "" for name, value in attrs if name in FETCHED]
        if "mermaid" in (given.get("class") or "").split():
            self.found.append("https://unpkg.com/ (the theme fetches Mermaid for this)")


def outside(text):
    return [address for address in Page(text).found if OUTSIDE.match(address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", target],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_no_page_asks_another_machine(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert {str(page.relative_to(site)): found for page in pages if (found := outside(page.read_text()))} == {}
    styles = {style.name: IN_STYLE.findall(style.read_text()) for style in site.rglob("*.css")}
    assert styles
    assert not any(styles.values()), styles


def test_pages_of_the_root_are_pages_of_the_site(site):
    assert 'href="control.html' in (site / "SECURITY.html").read_text()
    assert (site / "CHANGELOG.html").exists()


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<img src="//cdn.example/x.png">',
        '<link rel="stylesheet" href="https://fonts.example/css">',
        '<link rel="preconnect" href="https://fonts.example">',
        "<style>@import 'https://fonts.example/css'; a { background: url(//x.example/y.png) }</style>",
        '<pre class="mermaid">flowchart</pre>',
    ],
)
def test_what_is_fetched_from_outside_is_found(text):
    assert outside(text)


def test_a_link_to_read_is_no_request():
    assert (
        outside('<a href="https://evcc.io">evcc</a><link rel="canonical" href="https://x"><img src="page.png">') == []
    )


def test_links_are_those_of_the_site():
    assert relinked("[a](../SECURITY.md#x)", "http.md") == "[a](SECURITY.md#x)"
    assert relinked("[a](docs/control.md)", "SECURITY.md") == "[a](control.md)"
    assert (
        relinked("[a](../http.md) [b](#x) [c](https://x/y)", "howto/evcc.md")
        == "[a](../http.md) [b](#x) [c](https://x/y)"
    )
    assert relinked("[the rules](../examples/x.yaml)", "http.md") == "the rules (`examples/x.yaml` of the repository)"
    assert relinked("[`examples/x.yaml`](../examples/x.yaml)", "http.md") == "`examples/x.yaml`"
