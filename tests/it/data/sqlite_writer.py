"""Writes to a SQLite database all the time: DATA LINK, ACKS FILE.

Keeps one connection for as long as it can, which is the worst client that an evolve may
meet. Every fifth write has a blob. A number goes into ACKS once it was committed.
"""

import os
import sqlite3
import sys
import time

data, acks = sys.argv[1:]
log = open(acks, "a", buffering=1)
connection = None
number = 0
while True:
    number += 1
    try:
        if connection is None:
            connection = sqlite3.connect(os.path.join(os.path.realpath(data), "data.db"), timeout=5, isolation_level=None)
            # Not made by us: a link that points nowhere must not become a database.
            connection.execute("SELECT count(*) FROM words").fetchone()
        blob = None
        if number % 5 == 0:
            blob = "b%d" % number
            directory = os.path.join(os.path.dirname(connection.execute("PRAGMA database_list").fetchone()[2]), "blobs")
            with open(os.path.join(directory, blob + ".new"), "w") as file:
                file.write(blob)
            os.rename(os.path.join(directory, blob + ".new"), os.path.join(directory, blob))
        connection.execute("INSERT INTO words (number, blob) VALUES (?, ?)", (number, blob))
        log.write("%d\n" % number)
    except (sqlite3.Error, OSError) as error:
        print(number, error, file=sys.stderr, flush=True)
        if connection is not None:
            connection.close()
        connection = None
    time.sleep(0.02)
