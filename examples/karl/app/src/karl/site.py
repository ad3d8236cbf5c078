"""The site: `/BRANCH/CUSTOMER/` with a log-in, pages after it, and an honest `/BRANCH/health`.

Owns routes and pages; all data come from the database service, all looks from
`templates/`.
"""

import html
import time
from pathlib import Path
from string import Template

import humantime
import markline

from karl import brand, client, session, web

TEMPLATES = Path(__file__).parent / "templates"


def render(name, **values):
    """Returns the page `name` inside the frame. Values are escaped; `*_html` are not."""
    safe = {k: v if k.endswith("_html") else html.escape(str(v)) for k, v in values.items()}
    safe.update(heading=html.escape(brand.HEADING), release=html.escape(web.release()))
    body = Template((TEMPLATES / (name + ".html")).read_text("utf-8")).substitute(safe)
    frame = Template((TEMPLATES / "frame.html").read_text("utf-8"))
    return frame.substitute(safe, body_html=body, title=safe.get("title", safe["heading"]))


class Site:
    """The WSGI application of one branch."""

    def __init__(self, database, branch, customers, secret):
        self.database = database
        self.branch = branch
        self.customers = list(customers)
        self.secret = secret

    def __call__(self, environ, start_response):
        try:
            answer = self.answer(environ)
        except client.Unreachable as error:
            answer = web.plain("503 Service Unavailable", str(error))
        return answer(environ, start_response)

    def answer(self, environ):
        """Returns the response to one request."""
        path = environ["PATH_INFO"].split("/")[1:]
        if path[0] != self.branch:
            return web.plain("404 Not Found", "no such branch")
        if path[1:] == ["health"]:
            return self.health()
        if path[1:] in ([], [""]):
            links = "".join('<li><a href="%s/">%s</a></li>' % (name, name) for name in self.customers)
            return web.Response("200 OK", render("customers", links_html=links, branch=self.branch))
        customer, rest = path[1], path[2:]
        if customer not in self.customers:
            return web.plain("404 Not Found", "no such customer")
        if not rest:
            return web.redirect("/%s/%s/" % (self.branch, customer))
        return self.page(customer, rest, environ)

    def health(self):
        """Says 200 only when the database has answered just now, for every customer."""
        levels = {name: self.database.get(name, "status")["level"] for name in self.customers}
        return web.data({"branch": self.branch, "release": web.release(), "levels": levels})

    def page(self, customer, path, environ):
        """Returns a page of a customer's site, or the log-in in its place."""
        home = "/%s/%s/" % (self.branch, customer)
        if path == ["login"]:
            if environ["REQUEST_METHOD"] == "POST":
                return self.log_in(customer, home, web.form(environ))
            return self.log_in_page(customer)
        if path == ["logout"]:
            return web.redirect(home, [session.expired(home)])
        login = session.who(self.secret, customer, environ.get("HTTP_COOKIE"))
        if login is None:
            return self.log_in_page(customer)
        if path == [""]:
            return self.home(customer, login)
        if len(path) == 2 and path[0] == "entries" and path[1].isdigit():
            return self.entry(customer, int(path[1]))
        if len(path) == 2 and path[0] == "blobs" and path[1].isdigit():
            return self.blob(customer, int(path[1]))
        return web.plain("404 Not Found", "no such page")

    def log_in_page(self, customer, status="200 OK", message=""):
        """Returns the form."""
        page = render("login", customer=customer, message=message, title="Log in", branch=self.branch)
        return web.Response(status, page)

    def log_in(self, customer, home, form):
        """Checks the form and sets the cookie."""
        login = form.get("login") or form.get("user") or ""
        person = self.database.log_in(customer, login, form.get("password", ""))
        if person is None:
            return self.log_in_page(customer, "401 Unauthorized", "Login and password do not fit.")
        return web.redirect(home, [session.cookie(self.secret, home, customer, person["login"])])

    def home(self, customer, login):
        """Returns the first page: what the database says, newest entries first."""
        status = self.database.get(customer, "status")
        entries = self.database.get(customer, "entries", limit=10)
        rows = "".join(self.row(entry) for entry in entries)
        # Only evolved data has the number of words.
        evolved = "Evolved: %d words counted." % status["words"] if "words" in status else "Not evolved yet."
        values = {**status, "customer": customer, "login": login, "branch": self.branch, "evolved": evolved}
        page = render("home", rows_html=rows, **values)
        return web.Response("200 OK", page)

    def row(self, entry):
        """Returns one line of the list of entries."""
        known = {key: "–" if value is None else html.escape(str(value)) for key, value in entry.items()}
        known["age"] = humantime.ago(entry["created"], time.time())
        return Template((TEMPLATES / "row.html").read_text("utf-8")).substitute(known)

    def entry(self, customer, number):
        """Returns one entry with its blobs."""
        entry = self.database.get(customer, "entries", number)
        if entry is None:
            return web.plain("404 Not Found", "no such entry")
        blobs = "".join(
            '<li><a href="../blobs/%d">%s</a>, %d bytes</li>' % (b["id"], html.escape(b["name"]), b["size"])
            for b in entry["blobs"]
        )
        text = markline.to_html(entry["body"])
        page = render("entry", customer=customer, title=entry["title"], who=entry["who"], text_html=text, blobs_html=blobs)
        return web.Response("200 OK", page)

    def blob(self, customer, number):
        """Returns a blob as a download."""
        found = self.database.blob(customer, number)
        if found is None:
            return web.plain("404 Not Found", "no such blob")
        headers = [("Content-Disposition", 'attachment; filename="%s"' % found[0])]
        return web.Response("200 OK", found[1], "application/octet-stream", headers)
