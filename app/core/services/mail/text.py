"""The text part of a mail, made from its HTML."""

import re
from html.parser import HTMLParser

_PARAGRAPHS = frozenset({"blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"})
_LINES = frozenset({"article", "dd", "div", "dt", "footer", "header", "hr", "li", "main", "section", "tr"})
_UNSEEN = frozenset({"head", "script", "style", "template", "title"})


def html_to_text(html: str) -> str:
    """What a reader sees: paragraphs, list items, and links as `text (address)`."""
    parser = _TextParser()
    parser.feed(html)
    parser.close()
    return parser.text()


class _TextParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._unseen = 0
        self._links: list[tuple[str, int]] = []

    def text(self) -> str:
        """The lines, without doubled blanks; never more than one empty line in a row."""
        lines = (re.sub(r"[ \t\f\r]+", " ", line).strip() for line in "".join(self._parts).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "br":
            self._parts.append("\n")
        elif tag == "img":
            self._parts.append(values.get("alt") or "")
        elif tag == "a":
            self._links.append((values.get("href") or "", len(self._parts)))
        elif tag in ("td", "th"):
            self._parts.append(" ")
        elif tag in _PARAGRAPHS | _LINES:
            self._break(tag)
            self._parts.append({"li": "- ", "hr": "---\n"}.get(tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag == "a" and self._links:
            self._end_link(*self._links.pop())
        elif tag in _PARAGRAPHS | _LINES:
            self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._parts.append(re.sub(r"\s+", " ", data))

    def _end_link(self, address: str, start: int) -> None:
        label = " ".join("".join(self._parts[start:]).split())
        shown = address.removeprefix("mailto:")
        if not shown or shown.startswith("#") or label == shown:
            return
        # A blank before the bracket's end would break the address for those who click it.
        self._parts.append(f" ({shown})" if label else shown)

    def _break(self, tag: str) -> None:
        if self._parts and self._parts[-1] != "- ":  # a paragraph in a list item stays on its line
            self._parts.append("\n\n" if tag in _PARAGRAPHS else "\n")
