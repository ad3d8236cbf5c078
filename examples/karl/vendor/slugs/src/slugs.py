"""Turns a title into a part of a URL."""

import re
import unicodedata


def slug(title):
    """Returns `title` in lower-case letters, digits and single hyphens."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
