"""Who is logged in: a cookie that says so and is signed.

The secret lies beside the releases, not in one of them, so that a switch to another
release logs nobody out.
"""

import hmac
import os
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

NAME = "karl"
AGE_SECONDS_MAX = 12 * 3600


def load_secret(path):
    """Returns the secret in the file `path`; makes it where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    near = path.with_name(".%s.%d" % (path.name, os.getpid()))
    near.touch(mode=0o600)
    near.write_text(secrets.token_hex(32))
    try:
        # A link appears whole and never replaces: two first instances agree on one secret.
        os.link(near, path)
    except FileExistsError:
        pass
    finally:
        near.unlink()
    return path.read_bytes()


def cookie(secret, path, customer, login, now=None):
    """Returns the header that logs `login` in below `path`."""
    text = "%s/%s/%d" % (customer, login, now or time.time())
    value = "%s/%s" % (text, _sign(secret, text))
    return ("Set-Cookie", "%s=%s; Path=%s; HttpOnly; SameSite=Lax" % (NAME, value, path))


def expired(path):
    """Returns the header that logs out."""
    return ("Set-Cookie", "%s=; Path=%s; Max-Age=0; HttpOnly; SameSite=Lax" % (NAME, path))


def who(secret, customer, header, now=None):
    """Returns the login that the request's cookie proves for `customer`, or `None`."""
    try:
        jar = SimpleCookie(header or "")
    except CookieError:
        return None
    if NAME not in jar:
        return None
    text, _, signature = jar[NAME].value.rpartition("/")
    if not hmac.compare_digest(signature.encode(), _sign(secret, text).encode()):
        return None
    parts = text.split("/")
    if len(parts) != 3 or parts[0] != customer or int(parts[2]) + AGE_SECONDS_MAX < (now or time.time()):
        return None
    return parts[1]


def _sign(secret, text):
    return hmac.new(secret, text.encode(), "sha256").hexdigest()
