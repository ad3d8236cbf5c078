"""Makes the data that the example's production has: `production_data.py OUT`.

Stands in for the years that a real production has run. The same on every machine:
numbers come from a fixed seed. The result is laid on the production host once and
never touched by `rel` again.
"""

import random
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE / "app" / "src"))

from karl import baseline  # noqa: E402

CUSTOMERS = {"osf": 3000, "anothercustomer": 1800}
WORDS = "people plan meeting report budget notes review grant office travel network member draft archive policy".split()
FIRST_DAY = 1_230_768_000  # 1 January 2009


def fill(directory, name, entries):
    """Makes one customer's database with people, entries and blobs."""
    dice = random.Random(name)
    connection = baseline.create(directory)
    with connection:
        people = [baseline.add_person(connection, "demo", "Dana Demo", "demo")]
        for number in range(1, 60):
            login = "user%02d" % number
            people.append(baseline.add_person(connection, login, "User %d of %s" % (number, name), login))
        for number in range(entries):
            title = "%s %d" % (dice.choice(WORDS).capitalize(), number + 1)
            body = "# %s\n\n*%s* %s" % (title, name, " ".join(dice.choices(WORDS, k=dice.randint(5, 60))))
            created = FIRST_DAY + number * 9000 + dice.randint(0, 8000)
            entry = baseline.add_entry(connection, dice.choice(people), title, body, created)
            if number % 50 == 0:
                data = dice.getrandbits(8 * 4096).to_bytes(4096, "big") * dice.randint(1, 8)
                baseline.add_blob(connection, directory, entry, "scan-%d.bin" % (number + 1), data)
    connection.close()
    (directory / "LIVE").write_text("Production data of %s. Never evolve in place.\n" % name)


def main():
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    for name, entries in CUSTOMERS.items():
        fill(out / "data" / name, name, entries)
    (out / "bin").mkdir()
    shutil.copyfile(HERE / "app" / "src" / "karl" / "snapshot.py", out / "bin" / "snapshot.py")


if __name__ == "__main__":
    main()
