"""Checks a built site: every link, picture, script and anchor that its pages name is in it.

    python website/links.py build/site

Pages must not load anything from other hosts either. Exits with 1 and one line per fault.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src")}
"""Tags and attributes whose target a browser loads by itself."""


class Page(HTMLParser):
    """What a page refers to, and the anchors that others can refer to.

    Attributes:
        targets: targets as they are written, and whether a browser loads them by itself.
        anchors: identifiers of its elements.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[tuple[str, bool]] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps the targets and identifiers of an element."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value and (tag, name) != ("link", "canonical"):
                self.targets.append((value, (tag, name) in LOADED))


def faults(site: Path) -> Iterator[str]:
    """Every fault of the pages of a site, as one line."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site)
        for target, loaded in page.targets:
            address, anchor = urldefrag(target)
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if loaded:
                    yield f"{where}: loads {target} from another host"
                continue
            base = site if address.startswith("/") else path.parent
            found = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            found = found / "index.html" if found.is_dir() else found
            if not found.is_file():
                yield f"{where}: {target} is missing"
            elif anchor and found in pages and unquote(anchor) not in pages[found].anchors:
                yield f"{where}: {target} has no such place"


if __name__ == "__main__":
    found = list(faults(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "all links lead somewhere")
    sys.exit(bool(found))
