"""Names of any characters in the explorer's page: shown as they are, and nothing but text."""

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disentangle.explorer.page import HeatMap, PageRun, build_page

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
PARTS = ["</script>", "<script>", "<!--", "-->", "]]>", "&lt;", "&", '"', "'", "$data", "${x}"]
PARTS += ["</title>", "<img src=x onerror=alert(1)>", "\\", "\u2028", "\ud800", "\0", "\x1b", "é"]
NAMES = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=5).map("".join)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of its data."""

    def __init__(self, page):
        super().__init__()
        self.found, self.data = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, attributes))

    def handle_data(self, text):
        if self.found and ("id", "data") in self.found[-1][1]:
            self.data += text


def make_page(a, b):
    """A page with two names wherever there is one."""
    heat_map = HeatMap(a, [a], [b], [[0.5]])
    axes = [{"group": a, "name": b}]
    run = PageRun(
        b,
        1,
        1,
        axes,
        [[PIXEL]],
        [PIXEL],
        originals=[(a, PIXEL)],
        scores=[(b, 1.0)],
        maps=[heat_map],
    )
    return build_page([run, run], [a], 0)


@given(a=NAMES, b=NAMES)
def test_names_are_text(a, b):
    page = make_page(a, b)
    assert page.encode("utf-8")
    elements, plain = Elements(page), Elements(make_page("a", "b"))
    assert elements.found == plain.found
    assert json.loads(elements.data)["runs"][1]["maps"][0]["title"] == a
    assert json.loads(elements.data)["runs"][0]["scores"] == [[b, 1.0]]


@pytest.mark.parametrize("part", PARTS)
def test_each_part_by_itself(part):
    assert Elements(make_page(part, part)).found == Elements(make_page("a", "b")).found
