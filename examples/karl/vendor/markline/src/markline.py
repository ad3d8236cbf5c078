"""Turns a few signs of markup into HTML: paragraphs, `*strong*` and `# headings`."""

import html
import re


def to_html(text):
    """Returns `text` as HTML, with everything else escaped."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        body = re.sub(r"\*([^*\n]+)\*", r"<strong>\1</strong>", html.escape(block.strip()))
        blocks.append("<h3>%s</h3>" % body[2:] if body.startswith("# ") else "<p>%s</p>" % body)
    return "\n".join(blocks)
