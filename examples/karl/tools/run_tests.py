"""Runs the tests of a source tree against given wheels: `run_tests.py TREE [WHEEL...]`.

Nothing is installed and nothing is written into the tree: it is the output of
another target.
"""

import os
import sys
import unittest


def main():
    tree, wheels = sys.argv[1], [os.path.abspath(path) for path in sys.argv[2:]]
    sys.dont_write_bytecode = True
    os.chdir(tree)
    # A wheel of pure Python can be imported as it is.
    sys.path[:0] = [os.getcwd(), os.path.join(os.getcwd(), "src"), *wheels]
    suite = unittest.defaultTestLoader.discover("tests", top_level_dir=".")
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    if result.testsRun == 0:
        sys.exit("no tests in %s" % tree)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
