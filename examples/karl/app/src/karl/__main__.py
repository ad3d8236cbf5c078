"""Lets `python -m karl` stand for `karl`."""

import sys

from karl.cli import main

sys.exit(main())
