"""Writes to a ZODB behind ZEO all the time: PORT ACKS.

A client that fails is thrown away, with its cache. A number goes into ACKS once it was
committed; every fifth write has a blob.
"""

import logging
import sys
import time

import transaction
from BTrees.IOBTree import IOBTree
from ZEO.ClientStorage import ClientStorage
from ZODB import DB
from ZODB.blob import Blob

port, acks, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
logging.disable(logging.CRITICAL)
log = open(acks, "a", buffering=1)
db = None
storage = None
number = 0
while True:
    number += 1
    try:
        if db is None:
            storage = ClientStorage(("127.0.0.1", port), wait_timeout=10, blob_dir=directory, shared_blob_dir=False)
            db = DB(storage)
            connection = db.open()
        root = connection.root()
        if "words" not in root:
            root["words"] = IOBTree()
        if number % 5 == 0:
            blob = Blob()
            with blob.open("w") as file:
                file.write(b"b%d" % number)
            root["words"][number] = blob
        else:
            root["words"][number] = "word"
        transaction.commit()
        log.write("%d\n" % number)
    except Exception as error:
        print(number, type(error).__name__, error, file=sys.stderr, flush=True)
        transaction.abort()
        for one in [db, storage]:
            try:
                if one is not None:
                    one.close()
            except Exception:
                pass
        db = storage = None
    time.sleep(0.02)
