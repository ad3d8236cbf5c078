"""Tells each tool that is given files what to build, in the words of its own manual, and how a
build with it is started. A tool never gets less than `rel`: the same files, the same commands, in
the same places, and its fastest ordinary way to run them.
"""

import json
from pathlib import Path

from workloads import Target, Workload

JOBS = 2


class Tool:
    """How one tool is used. What it is reported stands in `write`."""

    name = ""
    options: list[str] = []
    env: dict[str, str] = {}
    # Where it keeps what it remembers.
    state: list[str] = []
    # The command by which it takes over outputs that others made, if it has one: that is how a
    # workload is made ready in seconds where its own first build takes minutes.
    adopt: list[str] | None = None
    # How long files must have been still before it sees that they change.
    tick_s = 0.05

    def __init__(self, program: Path):
        self.program = program

    def build(self) -> list[str]:
        return [str(self.program), *self.options]

    def environment(self, root: Path) -> dict[str, str]:
        return self.env

    def write(self, work: Workload, root: Path) -> None:
        raise NotImplementedError


class Rel(Tool):
    name = "rel"
    options = ["build", "-q"]
    state = [".rel", "cache"]

    def environment(self, root: Path) -> dict[str, str]:
        return {"REL_CACHE_DIR": str(root / "cache")}

    def write(self, work: Workload, root: Path) -> None:
        with open(root / "Releasefile.kdl", "w") as file:
            for target in work.targets:
                needs = f"needs {quoted([n.name for n in target.needs])}; " if target.needs else ""
                inputs = quoted([target.pattern] if target.pattern else target.inputs)
                run = quoted([target.script] if target.script else target.argv)
                file.write(
                    f'target "{target.name}" {{ {needs}inputs {inputs}; '
                    f'outputs "{target.output}"; run {run} }}\n'
                )


class Ninja(Tool):
    name = "ninja"
    options = [f"-j{JOBS}"]
    state = [".ninja_log", ".ninja_deps"]

    def write(self, work: Workload, root: Path) -> None:
        with open(root / "build.ninja", "w") as file:
            file.write("rule cp\n command = cp $in $out\n")
            file.write("rule sh\n command = $script\n")
            for target in work.targets:
                rule = "cp" if work.uniform else "sh"
                file.write(f"build {target.output}: {rule} {' '.join(reads(target))}\n")
                if not work.uniform:
                    file.write(f" script = {target.command}\n")


class Samurai(Ninja):
    name = "samurai"


class N2(Ninja):
    name = "n2"
    state = [".n2_db"]


class Make(Tool):
    name = "make"
    adopt = []
    options = ["-rR", f"-j{JOBS}"]

    def write(self, work: Workload, root: Path) -> None:
        with open(root / "Makefile", "w") as file:
            file.write(f"all: {' '.join(t.output for t in work.targets)}\n")
            for target in work.targets:
                file.write(f"{target.output}: {' '.join(reads(target))}\n\t{target.command}\n")


class Tup(Tool):
    name = "tup"
    options = [f"-j{JOBS}", "--quiet"]
    state = [".tup"]
    tick_s = 1.1

    def write(self, work: Workload, root: Path) -> None:
        with open(root / "Tupfile", "w") as file:
            for target in work.targets:
                file.write(f": {' '.join(reads(target))} |> {target.command} |> {target.output}\n")
        (root / "Tupfile.ini").touch()


class GoTask(Tool):
    name = "go-task"
    options = ["--silent", "all"]
    state = [".task"]
    env = {"TASK_TEMP_DIR": ".task"}

    def write(self, work: Workload, root: Path) -> None:
        tasks = {"all": {"deps": [t.name for t in work.targets]}}
        for target in work.targets:
            tasks[target.name] = {
                "deps": [need.name for need in target.needs],
                "sources": sources(target),
                "generates": [target.output],
                "cmds": [target.command],
            }
        # Without `run: once` a task that several need would be asked once for each of them.
        write_json(root / "Taskfile.yml", {"version": "3", "run": "once", "tasks": tasks})


class Doit(Tool):
    name = "doit"
    options = ["-v0"]
    state = [".doit.db", ".doit.db.db", ".doit.db.dat", ".doit.db.dir", ".doit.db.bak"]

    def write(self, work: Workload, root: Path) -> None:
        tasks = [
            [t.name, t.script or t.argv, t.pattern, t.inputs, [n.output for n in t.needs], t.output]
            for t in work.targets
        ]
        write_json(root / "tasks.json", tasks)
        (root / "dodo.py").write_text(
            "import json\n"
            "from glob import glob\n"
            "def task_build():\n"
            "    for name, action, pattern, inputs, made, output in json.load(open('tasks.json')):\n"
            "        files = glob(pattern) if pattern else inputs\n"
            "        yield {'name': name, 'actions': [action], 'file_dep': files + made,\n"
            "               'targets': [output]}\n"
        )


class Scons(Tool):
    name = "scons"
    options = ["-Q", "-s", f"-j{JOBS}"]
    state = [".sconsign.dblite"]

    def write(self, work: Workload, root: Path) -> None:
        lines = ["import os", "env = Environment(ENV=os.environ, tools=[])"]
        for target in work.targets:
            lines.append(f"env.Command({target.output!r}, {reads(target)!r}, {target.command!r})")
        (root / "SConstruct").write_text("\n".join(lines) + "\n")


class Snakemake(Tool):
    name = "snakemake"
    adopt = ["--touch", "-c1", "--quiet", "all", "--"]
    options = [f"-c{JOBS}", "--quiet", "all", "--"]
    state = [".snakemake"]

    def write(self, work: Workload, root: Path) -> None:
        outputs = [t.output for t in work.targets]
        with open(root / "Snakefile", "w") as file:
            file.write(f"from glob import glob\nrule all:\n    input: {outputs!r}\n")
            if work.uniform:
                file.write("rule:\n    input: 'in/{file}'\n    output: 'out/{file}'\n")
                file.write("    shell: 'cp {input} {output}'\n")
                return
            for target in work.targets:
                made = [need.output for need in target.needs]
                file.write(f"rule:\n    input: glob({target.pattern!r}), {made!r}\n")
                file.write(f"    output: {target.output!r}\n    shell: {target.command!r}\n")


class Dvc(Tool):
    name = "dvc"
    adopt = ["commit", "--force", "--quiet"]
    options = ["repro", "--quiet"]
    state = [".dvc", "dvc.lock"]

    def write(self, work: Workload, root: Path) -> None:
        stages = {
            t.name: {"cmd": t.command, "deps": reads(t), "outs": [t.output]} for t in work.targets
        }
        write_json(root / "dvc.yaml", {"stages": stages})
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("[core]\n    no_scm = True\n    analytics = False\n")


def reads(target: Target) -> list[str]:
    """Returns all files that a target reads, for tools that want them listed."""
    return target.inputs + [need.output for need in target.needs]


def sources(target: Target) -> list[str]:
    """Returns what a target reads, for tools that have patterns."""
    inputs = [target.pattern] if target.pattern else target.inputs
    return inputs + [need.output for need in target.needs]


def quoted(texts: list[str]) -> str:
    return " ".join(json.dumps(text) for text in texts)


def write_json(path: Path, value: object) -> None:
    """Writes JSON, which is YAML as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
