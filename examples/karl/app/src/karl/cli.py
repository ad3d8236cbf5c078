"""The command `karl`: serves, evolves, asks.

Reads the arguments and nothing else: all an instance needs stands on its command line.
"""

import argparse
import sys
import time
from pathlib import Path

from karl import client, database, evolve, server, session, site


def main(arguments=None):
    """Runs the command line and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.action(options) or 0
    except (client.Unreachable, evolve.Refused) as error:
        print("karl: %s" % error, file=sys.stderr)
        return 1


def _serve(options):
    secret = session.load_secret(options.secret)
    base = client.Database(options.database, options.branch)
    application = site.Site(base, options.branch, options.customers, secret)
    return _run(options, lambda: application)


def _serve_database(options):
    return _run(options, lambda: database.Service(options.data, options.branch))


def _run(options, make_app):
    run = Path(options.run)
    server.serve(make_app, run / "karl.sock", run / "karl.lock")


def _ask(options):
    """Asks an instance over its own socket until it answers as expected."""
    deadline = time.monotonic() + options.within
    while True:
        try:
            connection = client.SocketConnection(Path(options.run) / "karl.sock", timeout=5)
            status, body, _ = client.ask(connection, "GET", options.path)
            text = "%d %s" % (status, body.decode(errors="replace").strip())
            if status == 200:
                print(text)
                return 0
        except client.Unreachable as error:
            text = str(error)
        if time.monotonic() >= deadline:
            print("karl: no good answer within %g s: %s" % (options.within, text), file=sys.stderr)
            return 1
        time.sleep(0.1)


def _evolve(options):
    level = evolve.evolve(options.db, fail_at=options.fail_at)
    print("%s is at level %d" % (options.db, level))


def _parser():
    parser = argparse.ArgumentParser(prog="karl", description="A small site and its database.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the site")
    serve.add_argument("--database", required=True, metavar="URL")
    serve.add_argument("--customers", required=True, nargs="+")
    serve.add_argument("--secret", required=True, metavar="FILE", help="made where there is none")
    serve.set_defaults(action=_serve)

    serve_database = commands.add_parser("db-serve", help="serve the data of all customers")
    serve_database.add_argument("--data", required=True, metavar="DIR", help="holds CUSTOMER/current")
    serve_database.set_defaults(action=_serve_database)

    for command in (serve, serve_database):
        command.add_argument("--branch", required=True)
        command.add_argument("--run", required=True, metavar="DIR", help="for the socket")

    ask = commands.add_parser("ask", help="ask an instance over its socket; 0 if it says 200")
    ask.add_argument("--run", required=True, metavar="DIR")
    ask.add_argument("--within", type=float, default=0, metavar="SECONDS")
    ask.add_argument("path")
    ask.set_defaults(action=_ask)

    evolving = commands.add_parser("evolve", help="apply the pending evolve scripts to a copy")
    evolving.add_argument("--db", required=True, metavar="DIR")
    evolving.add_argument("--fail-at", type=int, default=0, metavar="LEVEL", help="for drills")
    evolving.set_defaults(action=_evolve)
    return parser
