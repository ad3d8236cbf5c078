"""Makes a wheel of each vendored package: `vendor_wheels.py VENDOR OUT`."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent.parent / "app" / "backend"))

import wheelwright  # noqa: E402


def main():
    vendor, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    for project in sorted(vendor.glob("*/pyproject.toml")):
        print(wheelwright.write_wheel(project.parent, out))


if __name__ == "__main__":
    main()
