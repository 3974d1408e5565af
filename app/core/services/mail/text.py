"""The text part of a mail, made from its HTML."""

import re
from html.parser import HTMLParser

_PARAGRAPHS = frozenset({"blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"})
_LINES = frozenset({"article", "dd", "div", "dt", "footer", "header", "hr", "li", "main", "section", "tr"})
_UNSEEN = frozenset({"head", "script", "style", "template", "title"})
_BULLET = "- "


def html_to_text(html: str) -> str:
    """Return the text that a reader sees: paragraphs, list items, and links as `text (address)`."""
    parser = _TextParser()
    parser.feed(html)
    parser.close()
    return parser.text()


class _TextParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._breaks = 0
        self._unseen = 0
        self._links: list[tuple[str, int]] = []

    def text(self) -> str:
        """Return the lines, without doubled blanks."""
        lines = (re.sub(" +", " ", line).strip() for line in "".join(self._parts).split("\n"))
        return "\n".join(lines).strip() + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "body":
            self._unseen = 0  # HTML lets </head> be left out
        elif tag in _UNSEEN:
            self._unseen += 1
        elif self._unseen:
            return
        elif tag == "br":
            self._breaks += 1
        elif tag == "img":
            self._write(values.get("alt") or "")
        elif tag == "a":
            if self._links:  # a link ends where the next one begins (HTML 13.2.6.4.7); none holds another
                self._end_link(*self._links.pop())
            self._links.append((values.get("href") or "", len(self._parts)))
        elif tag in ("td", "th"):
            self._write(" ")
        else:
            self._break(tag)
            self._write({"li": _BULLET, "hr": "---"}.get(tag, ""))
            if tag == "hr":
                self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif self._unseen:
            return
        elif tag == "a" and self._links:
            self._end_link(*self._links.pop())
        else:
            self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._write(re.sub(r"\s+", " ", data))

    def _write(self, text: str) -> None:
        if self._breaks:
            text = text.lstrip()
            if text and self._parts:
                self._parts.append("\n" * self._breaks)
        if text:
            self._parts.append(text)
            self._breaks = 0

    def _break(self, tag: str) -> None:
        if self._parts[-1:] == [_BULLET]:
            return  # a paragraph in a list item stays on the item's line
        self._breaks = max(self._breaks, 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0)

    def _end_link(self, address: str, start: int) -> None:
        label = " ".join("".join(self._parts[start:]).split())
        shown = address.removeprefix("mailto:")
        if shown and not shown.startswith("#") and label != shown:
            self._write(f" ({shown})" if label else shown)
