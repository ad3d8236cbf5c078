"""Makes the image: `make_image.py OUT TREE WHEEL...`.

buildah needs no engine, and here no rights beyond the caller's: its storage is a
directory that is gone afterwards. Times are fixed, so the same inputs make the same
digest. `OUT` becomes an OCI layout with the image `karl`. Of `TREE` it takes only
what `image_inputs.py` prints.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.dont_write_bytecode = True

import image_inputs  # noqa: E402

HERE = Path(__file__).parent.parent
COMMAND = "#!/usr/bin/env python3\nimport sys\n\nfrom %s import %s\n\nsys.exit(%s())\n"


def lay_out(context, lines, wheels):
    """Fills the build context with libraries and commands."""
    by_name = {path.name.partition("-")[0].replace("_", "-"): path for path in wheels}
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "requires":
            name = re.match(r"[\w.-]+", rest).group().lower()
            if name not in by_name:
                raise SystemExit("`%s` is needed, but vendor/ has no such package" % name)
            with zipfile.ZipFile(by_name[name]) as archive:
                archive.extractall(context / "site-packages")
        elif kind == "command":
            name, place = rest.split(" = ")
            module, function = place.split(":")
            script = context / "bin" / name
            script.write_text(COMMAND % (module, function, function))
            script.chmod(0o755)


def main():
    out, tree, wheels = Path(sys.argv[1]), sys.argv[2], [Path(path) for path in sys.argv[3:]]
    # File modes are part of the digest; the person's umask must not be.
    os.umask(0o022)
    lines = image_inputs.lines(tree)
    with tempfile.TemporaryDirectory(prefix="karl-image-") as scratch:
        scratch = Path(scratch)
        context = scratch / "context"
        for part in ("site-packages", "bin"):
            (context / part).mkdir(parents=True)
        lay_out(context, lines, wheels)
        buildah = ["buildah", "--root", str(scratch / "root"), "--runroot", str(scratch / "run"), "--storage-driver", "vfs"]
        file = str(HERE / "image" / "Containerfile")
        build = ["bud", "-q", "--isolation", "chroot", "--timestamp", "0", "-t", "karl", "-f", file, str(context)]
        subprocess.run([*buildah, *build], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*buildah, "push", "-q", "karl", "oci:%s:karl" % out], check=True)
    print("\n".join(["made %s:" % out, *lines]))


if __name__ == "__main__":
    main()
