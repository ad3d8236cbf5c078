"""Makes an empty ZODB: DIRECTORY."""

import os
import sys

import transaction
from BTrees.IOBTree import IOBTree
from ZODB import DB
from ZODB.FileStorage import FileStorage

directory = sys.argv[1]
os.makedirs(directory)
db = DB(FileStorage(os.path.join(directory, "Data.fs"), blob_dir=os.path.join(directory, "blobs")))
connection = db.open()
connection.root()["words"] = IOBTree()
transaction.commit()
db.close()
