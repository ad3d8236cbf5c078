"""Level 3: each entry has a teaser, the start of its text."""

LENGTH_MAX = 60


def evolve(connection, directory):
    """Adds the column `teaser` and fills it."""
    connection.execute("ALTER TABLE entries ADD COLUMN teaser TEXT NOT NULL DEFAULT ''")
    rows = connection.execute("SELECT id, body FROM entries").fetchall()
    connection.executemany("UPDATE entries SET teaser = ? WHERE id = ?", [(teaser(body), i) for i, body in rows])


def teaser(body):
    """Returns the start of `body`, cut between two words."""
    text = " ".join(body.split())
    return text if len(text) <= LENGTH_MAX else text[:LENGTH_MAX].rsplit(" ", 1)[0] + " …"
