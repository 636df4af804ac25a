"""Check the links of a folder of HTML pages: each leads to a file that is there, and to a place on the page."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href"}  #: what a browser fetches to draw a page


class Page(HTMLParser):
    """The links and the places of a page.

    Attributes:
        links: addresses, as written.
        loaded: those of them that a browser fetches to draw the page.
        places: what a link can lead to after a "#".
    """

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loaded, self.places = set(), set(), {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what a tag has of these."""
        given = dict(attributes)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag in LOADED and given.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loaded.add(given.get(LOADED[tag]) or "")
        self.links |= {given[name] for name in ("href", "src") if given.get(name)}


def broken(site: Path) -> list[str]:
    """A sentence for each link that leads nowhere, and for each thing that is loaded from another site."""
    pages = {path: Page(path) for path in sorted(site.resolve().rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            address, name = urlsplit(link), path.relative_to(site.resolve())
            if address.scheme or address.netloc:
                if link in page.loaded and address.scheme != "data":
                    found.append(f"{name} loads {link}, but the book must work without a network.")
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{name} links {link}, which does not exist.")
            elif target in pages and unquote(address.fragment) not in pages[target].places:
                found.append(f"{name} links {link}, but that page has no such place.")
    return found
