"""karl: a small site with people, pages and a database that evolves."""
