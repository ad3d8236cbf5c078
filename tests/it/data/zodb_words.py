"""Prints what is in a ZODB: DATA.FS BLOBS. Numbers of words, then `evolved NAME TIMES`."""

import sys

from ZODB import DB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

storage = FileStorage(sys.argv[1], read_only=True, blob_dir=sys.argv[2])
root = DB(storage).open().root()
for number, word in root.get("words", {}).items():
    if isinstance(word, Blob):
        with word.open("r") as file:
            assert file.read() == b"b%d" % number, number
    print(number)
for name in root.get("evolved", []):
    print("evolved", name)
