//! A command that is watched asks for much and for odd things, and harms nobody but itself.

use crate::space::Space;

/// Paths of thousands of parts, which are looked at one by one.
const DEEP: &str = r#"
import os
for start in ["/nowhere", "/proc/self/cwd", "x", ""]:
    for part in ["/y", "/..", "/."]:
        path = start + part * (4000 // len(part))
        for ask in [os.stat, os.lstat, os.readlink, open, os.listdir, os.mkdir, os.chdir, os.remove]:
            try:
                ask(path)
            except OSError:
                pass
os.chdir(os.environ["TMPDIR"])
for _ in range(60):
    os.mkdir("d" * 150)
    os.chdir("d" * 150)
    try:
        os.chmod(".", 0o700)
    except OSError:
        pass
print("asked")
"#;

#[test]
fn a_path_of_thousands_of_parts_ends_no_rel() {
    let space = Space::new(
        r#"
target "strict" { sandbox "strict"; inputs "deep.py"; run "/usr/bin/python3 -S deep.py" }
target "traced" {
    inputs "deep.py"
    outputs "asked"
    run "mkdir scratch; TMPDIR=$PWD/scratch /usr/bin/python3 -S deep.py > {out}; rm -r scratch"
}
"#,
    );
    space.write("deep.py", DEEP);
    let output = space.run(["build", "strict"]).ok();
    assert!(output.stderr.contains("asked"), "{output}");
    let told = space.run(["check", "--trace", "traced"]).ok();
    assert_eq!(space.read("asked"), "asked\n", "{told}");
}

/// Some call always waits for an answer, which takes a while.
const BUSY: &str = r#"
import os
for _ in range(16):
    if os.fork() == 0:
        os.setsid()
        while True:
            try:
                os.stat("/proc/self/cwd" + "/y" * 2000)
            except OSError:
                pass
"#;

#[test]
fn processes_that_ask_without_end_are_ended() {
    let space = Space::new(
        r#"target "t" { sandbox "strict"; inputs "busy.py"; run "/usr/bin/python3 -S busy.py" }"#,
    );
    space.write("busy.py", BUSY);
    let told = space.run(["build"]).fails(1);
    assert!(told.stderr.contains("left a process behind"), "{told}");
}

/// Directories without end, of which each is entered.
const NESTED: &str = r#"
import os, sys
os.chdir(sys.argv[1])
name = sys.argv[3]
for _ in range(int(sys.argv[2])):
    os.mkdir(name)
    os.chdir(name)
"#;

#[test]
fn deep_directories_end_no_rel() {
    let space = Space::in_memory();
    space.write(
        "Releasefile.kdl",
        r#"
target "private" {
    sandbox "strict"
    env LONG="[long]"
    inputs "n.py"
    run "/usr/bin/python3 -S n.py $TMPDIR 1000 $LONG"
}
target "stage" {
    sandbox "strict"
    env LONG="[long]"
    inputs "n.py"
    outputs "out/"
    run "mkdir out; /usr/bin/python3 -S n.py out 300 $LONG"
}
target "tree" {
    inputs "n.py"
    outputs "tree/"
    run "mkdir tree; /usr/bin/python3 -S n.py tree 1900 d"
}
target "needs" { needs "tree"; sandbox "strict"; outputs "n"; run "cp n.py {out} || echo > {out}" }
"#
        .replace("[long]", &"l".repeat(100)),
    );
    space.write("n.py", NESTED);
    for _ in 0..2 {
        let _ = space.run(["build", "private", "--force"]).ok();
        let told = space.run(["build", "stage"]).fails(1);
        assert!(told.stderr.contains("file name too long"), "{told}");
    }
    assert!(space.shell("ls .rel/sandbox/at-work").is_empty());
    let _ = space.run(["build", "needs"]).ok();
    space.shell("rm -r tree");
    space.build(["needs"]).ok().is("needs fresh, tree restored");
}

/// Each of these paths is another one.
const MANY: &str = r#"
import os
for number in range(30000):
    try:
        os.stat(f"/{number}" + ("/" + "y" * 199) * 18)
    except OSError:
        pass
"#;

#[test]
fn a_command_that_asks_for_too_many_files_fails() {
    let space = Space::new(
        r#"target "t" { sandbox "strict"; inputs "m.py"; run "/usr/bin/python3 -S m.py" }"#,
    );
    space.write("m.py", MANY);
    let told = space.run(["build"]).fails(1);
    let text = "`t` could not be watched: it asks for more files than 64 MiB of paths can name";
    assert!(told.stderr.contains(text), "{told}");
    let help = "help: without `sandbox \"strict\"` it is not watched";
    assert!(told.stderr.contains(help), "{told}");
}
