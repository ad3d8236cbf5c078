//! `sandbox "strict"`: what honest commands find, what is reported about the others, and
//! `rel check --trace`. The cheats have a table of their own.

use insta::assert_snapshot;
use serde_json::Value;

use crate::space::{PATH, Space};

#[test]
fn a_command_finds_what_is_declared() {
    let space = Space::new(
        r##"
sandbox "strict"
target "made" { outputs "gen/"; run "mkdir -p gen/empty; echo made > gen/m; ln -s m gen/l" }
target "t" {
    needs "made"
    inputs "src/**/*.txt" "!src/not.txt" "link" "../above.txt" "[space]/far.txt" "tool" "gen/m"
    dir "src"
    outputs "out/tree/"
    outputs "out/*.log" count=1
    env "KEPT"
    run #"""
        cat a.txt deep/b.txt ../link ../gen/m ../gen/l ../../above.txt [space]/far.txt
        test ! -e not.txt
        test -d ../gen/empty
        ../tool
        echo "$KEPT"
        test -z "$(ls -A "$HOME")"
        echo t > "$TMPDIR/t"
        test a.txt -ot deep/b.txt
        basename "$(cd .. && pwd)"
        mkdir -p ../out/tree/deep ../out/tree/empty
        echo one > ../out/tree/deep/one
        echo log > ../out/x.log
    """#
}
"##,
    );
    let far = space.base().display().to_string();
    let text = space.read("Releasefile.kdl").replace("[space]", &far);
    space.write("Releasefile.kdl", text);
    space
        .write("src/a.txt", "a\n")
        .write("src/deep/b.txt", "b\n")
        .write("src/not.txt", "not\n")
        .write("linked.txt", "linked\n")
        .write("tool", "#!/bin/sh\necho tool\n")
        .write("../above.txt", "above\n")
        .write("../far.txt", "far\n");
    space.shell("ln -s linked.txt link; chmod +x tool; touch -d 2001-01-01 src/a.txt");
    let mut rel = space.rel(["build", "t", "-q"]);
    let _ = space.finish(rel.env("KEPT", "kept")).ok();
    let printed = space.run(["log", "t"]).ok().stdout;
    assert_snapshot!(printed, @r"
    a
    b
    linked
    made
    made
    above
    far
    tool
    kept
    work
    ");
    assert_eq!(space.read("out/tree/deep/one"), "one\n");
    assert_eq!(space.read("out/x.log"), "log\n");
    let mut rel = space.rel(["--json", "build", "t"]);
    let again = space.finish(rel.env("KEPT", "kept")).ok().stdout;
    assert!(again.contains("\"t\": \"fresh\""), "{again}");
    assert_eq!(space.shell("ls .rel/sandbox/at-work"), "");
}

#[test]
fn what_a_command_lacks_is_named() {
    let space = Space::new(
        r#"
target "object" {
    sandbox "strict"
    inputs "src/main.c"
    outputs "out/main.o"
    run "cc -c src/main.c -o {out}"
}
"#,
    );
    space
        .write(
            "src/main.c",
            "#include \"x.h\"\nint main(void) { return X; }\n",
        )
        .write("src/x.h", "#define X 0\n");
    assert_snapshot!(space.run(["build"]).fails(1), @r#"
    --- stderr
         run object  never built here
    error: `object` failed: exit status 1
      command     cc -c src/main.c -o 'out/main.o'
      printed     src/main.c:1:10: fatal error: x.h: No such file or directory
                      1 | #include "x.h"
                        |          ^~~~~
                  compilation terminated.
      undeclared  reads `src/x.h`
      key         [KEY]
      help: add `inputs "src/x.h"`
    rel: 1 failed, 0 up to date, in [TIME]
    --- exit code 1
    "#);
    assert!(!space.has("out/main.o"));
    let text = space.read("Releasefile.kdl");
    let text = text.replace("src/main.c\"\n", "src/main.c\"\n    inputs \"src/x.h\"\n");
    space.write("Releasefile.kdl", text);
    space.build([]).ok().is("object ran");
}

#[test]
fn what_a_command_writes_undeclared_is_named() {
    let space = Space::new(
        r#"
target "t" {
    sandbox "strict"
    inputs "in.txt"
    outputs "out/a"
    run "echo a | tee {out} out/b out/c out/d out/e out/f > out/g; echo done"
}
"#,
    );
    space.write("in.txt", "in\n");
    assert_snapshot!(space.run(["build"]).fails(1), @r#"
    --- stderr
         run t  never built here
    error: `t` wrote `out/b`, which it does not declare
      and      out/c
      and      out/d
      and      out/e
      and      out/f
      and      1 more
      printed  done
      key      [KEY]
      help: add `outputs "out/b"`, or write it below `$TMPDIR`
    rel: 1 failed, 0 up to date, in [TIME]
    --- exit code 1
    "#);
    assert!(!space.has("out/a") && !space.has("out/b"));
}

#[test]
fn results_are_cached_and_a_strict_one_is_another() {
    let space = Space::new(r#"target "t" { inputs "i"; outputs "o"; run "cp i o" }"#);
    space.write("i", "i\n");
    space.build([]).ok().is("t ran");
    space.write(
        "Releasefile.kdl",
        r#"sandbox "strict"; target "t" { inputs "i"; outputs "o"; run "cp i o" }"#,
    );
    assert_snapshot!(space.run(["why", "t"]).ok(), @r"
    stale  t
           sandbox is new  strict
    ");
    space.build([]).ok().is("t ran, same result");
    space.remove("o");
    space.build([]).ok().is("t restored");
}

#[test]
fn tools_bring_what_belongs_to_them() {
    let space = Space::new(
        r#"
target "by-path" { sandbox "strict"; outputs "a"; run "hello > {out}" }
target "by-name" {
    sandbox "strict" { read "~/sdk" }
    outputs "b"
    run "[home]/sdk/run > {out}"
}
target "by-nothing" { sandbox "strict"; outputs "c"; run "[home]/sdk/run > {out}" }
"#,
    );
    let home = space.base().join("home").display().to_string();
    let text = space.read("Releasefile.kdl").replace("[home]", &home);
    space
        .write("Releasefile.kdl", text)
        .write(
            "../home/tools/bin/hello",
            "#!/bin/sh\ncat \"$(dirname \"$0\")/../share/text\"\n",
        )
        .write("../home/tools/share/text", "hello\n")
        .write("../home/sdk/run", "#!/bin/sh\necho sdk\n");
    space.shell("chmod +x ../home/tools/bin/hello ../home/sdk/run");
    let mut rel = space.rel(["build", "-k"]);
    let path = format!("{home}/tools/bin:{}", *PATH);
    let told = space.finish(rel.env("PATH", path)).fails(1).stderr;
    assert_eq!(space.read("a"), "hello\n");
    assert_eq!(space.read("b"), "sdk\n");
    assert!(told.contains("sdk/run`"), "{told}");
}

/// Runs a program with one system call missing, as on an older kernel.
const WITHOUT: &str = r#"
import ctypes, os, struct, sys
number, program = int(sys.argv[1]), sys.argv[2:]
step = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
filter = step(0x20, 0, 0, 0) + step(0x15, 0, 1, number) + step(6, 0, 0, 0x50026) + step(6, 0, 0, 0x7fff0000)
steps = ctypes.create_string_buffer(filter)
program_of = struct.pack("HxxxxxxP", 4, ctypes.addressof(steps))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program_of) == 0
os.execv(program[0], program)
"#;

#[test]
fn a_kernel_that_can_not_do_it_is_told() {
    let space = Space::new(r#"target "t" { sandbox "strict"; outputs "o"; run "echo > {out}" }"#);
    // `landlock_create_ruleset` has this number everywhere.
    let mut old = space.program("python3");
    old.args(["-c", WITHOUT, "444", crate::space::REL, "build"]);
    assert_snapshot!(space.finish(&mut old).fails(1), @r#"
    --- stderr
         run t  never built here
    error: `t` cannot run in its sandbox here: this kernel has no Landlock of version 3 or later, or it is turned off
      key  [KEY]
      help: set `sandbox "off"`, or build on another machine
    rel: 1 failed, 0 up to date, in [TIME]
    --- exit code 1
    "#);
    assert!(!space.has("o"));
}

/// Returns what a trace of the only target tells, as `does what`.
#[track_caller]
fn traced(space: &Space) -> Vec<String> {
    let output = space.run(["--json", "check", "--trace", "t"]);
    let told: Value = serde_json::from_str(&output.stdout).expect("an answer");
    assert_eq!(told["ok"], output.code == 0, "{told:#}");
    let found = told["undeclared"]["t"].as_array().expect("findings").iter();
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    found
        .map(|f| format!("{} {}", text(&f["does"]), text(&f["what"])))
        .collect()
}

#[test]
fn a_trace_tells_what_is_touched_undeclared() {
    let table: &[(&str, &[&str])] = &[
        ("cat in.txt > {out}", &[]),
        ("cat a.txt > {out}", &["reads a.txt"]),
        ("busybox cat sub/../a.txt > {out}", &["reads a.txt"]),
        ("test -e a.txt; echo > {out}", &["looks at a.txt"]),
        ("cat link > {out}", &["reads a.txt", "looks at link"]),
        ("ls sub > {out}", &["lists sub/"]),
        ("cp sub/b.txt {out}", &["reads sub/b.txt"]),
        ("./tool > {out}", &["runs tool"]),
        ("./script > {out}", &["runs script", "runs shell"]),
        ("cat gen > {out}", &["reads gen"]),
        ("echo > {out}; echo >> in.txt", &["writes in.txt"]),
        ("echo > {out}; echo > new.txt", &["writes new.txt"]),
        ("echo > {out}; echo > temp; rm temp", &[]),
        (
            "echo > {out}; mv a.txt c.txt",
            &["writes a.txt", "writes c.txt"],
        ),
        ("echo > {out}; chmod 600 a.txt", &["writes a.txt"]),
        ("echo > {out}; echo > ../home/x", &["writes [space]/home/x"]),
        ("cat ~/.secret > {out}", &["reads [space]/home/.secret"]),
        ("sh -c 'exec 3< a.txt; cat <&3' > {out}", &["reads a.txt"]),
        ("cat .rel/lock > {out}", &["reads .rel/lock"]),
        ("(setsid cat a.txt > {out} &); sleep 0.3", &["reads a.txt"]),
        (
            "echo > {out}; setsid sleep 30 &",
            &["leaves a process behind"],
        ),
        (
            "python3 -c 'import socket; socket.socket().connect_ex((\"127.0.0.1\", 9))' > {out}",
            &["connects to 127.0.0.1:9"],
        ),
        (
            "python3 -c 'import threading; t = threading.Thread(target=open, args=(\"a.txt\",)); t.start(); t.join()' > {out}",
            &["reads a.txt"],
        ),
    ];
    for (command, expected) in table {
        let space = Space::new(&format!(
            "target \"made\" {{ outputs \"gen\"; run \"echo > {{out}}\" }}\n\
             target \"t\" {{ inputs \"in.txt\"; outputs \"out\"; env \"HOME\"; run #\"{command}\"# }}\n"
        ));
        for path in ["in.txt", "a.txt", "sub/b.txt", "gen", "../home/.secret"] {
            space.write(path, "x\n");
        }
        space.write("tool", "#!/bin/sh\n");
        space.write("script", format!("#!{}\n", space.path("shell").display()));
        space.shell("cp /bin/busybox shell; chmod +x tool script; ln -s a.txt link");
        let found = traced(&space);
        assert_eq!(found, *expected, "{command}");
    }
}

#[test]
fn a_trace_keeps_only_what_is_declared() {
    let space = Space::new(
        r#"
target "made" { outputs "gen"; run "echo > {out}" }
target "t" { inputs "in.txt"; outputs "out"; run "cat in.txt a.txt gen > {out}" }
"#,
    );
    space.write("in.txt", "in\n").write("a.txt", "a\n");
    space.build(["made"]).ok().is("made ran");
    assert_snapshot!(space.run(["check", "--trace", "t"]).fails(1), @r#"
    t has 2 undeclared things:
      reads `a.txt`
          add `inputs "a.txt"`
      reads `gen`
          add `needs "made"`
    --- stderr
         run t  forced  (and 1 more)
        done t  [TIME]
    --- exit code 1
    "#);
    let text = space.read("Releasefile.kdl");
    let text = text.replace(
        "inputs \"in.txt\"",
        "needs \"made\"; inputs \"in.txt\" \"a.txt\"",
    );
    space.write("Releasefile.kdl", text);
    assert_snapshot!(space.run(["check", "--trace", "t"]).ok(), @r"
    t accesses only declared files
    --- stderr
         run t  forced  (and 1 more)
        done t  [TIME]
    ");
    space.build([]).ok().is("made fresh, t fresh");
}

#[test]
fn a_trace_does_not_stand_for_a_sandbox() {
    let space = Space::new(r#"target "t" { sandbox "strict"; outputs "o"; run "echo > {out}" }"#);
    assert_eq!(traced(&space), Vec::<String>::new());
    space.build([]).ok().is("t ran");
    assert_eq!(traced(&space), Vec::<String>::new());
}

/// A repository in a directory that is opened to read is not opened with it.
#[test]
fn a_directory_of_tools_opens_no_repository() {
    let space = Space::new(
        r#"
target "t" {
    sandbox "strict" { read "[space]" }
    outputs "o"
    run "cat [space]/tool > {out}; cat [work]/secret >> {out}"
}
"#,
    );
    let base = space.base().display().to_string();
    let text = space.read("Releasefile.kdl").replace("[space]", &base);
    let text = text.replace("[work]", &space.path("").display().to_string());
    space
        .write("Releasefile.kdl", text)
        .write("../tool", "tool\n")
        .write("secret", "secret\n");
    let told = space.run(["build"]).fails(1).stderr;
    assert!(told.contains("reads `secret`"), "{told}");
    assert!(!told.contains("tool`"), "{told}");
}

/// What one stage was made of is used again for the next: nothing of it may show.
#[test]
fn a_stage_shows_nothing_of_a_former_one() {
    let space = Space::new(
        r#"
sandbox "strict"
target "t" { inputs "in/*"; outputs "o"; run "cat in/*; stat -c '%a %n' in/* > {out}" }
"#,
    );
    space.write("in/a", "a long text\n").write("in/b", "b\n");
    space.shell("chmod 755 in/a; chmod 640 in/b");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "755 in/a\n640 in/b\n");
    space.write("in/a", "a\n").write("in/c", "");
    space.shell("chmod 600 in/a; chmod 444 in/c");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "600 in/a\n640 in/b\n444 in/c\n");
    assert_eq!(space.run(["log", "t"]).ok().stdout, "a\nb\n");
    space.remove("in/c").write("in/b", "");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "600 in/a\n640 in/b\n");
    assert_eq!(space.run(["log", "t"]).ok().stdout, "a\n");
}
