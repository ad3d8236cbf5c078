//! What strict commands got at once though no key holds it, and may not get again: each of
//! these results was kept as proven.

use std::fs;
use std::path::Path;

use crate::space::{PATH, Space};

/// Returns a space whose strict target `t` has `o` as its output.
fn strict(inputs: &str, command: &str) -> Space {
    let space = Space::empty();
    let command = command.replace("[work]", &space.path("").display().to_string());
    let text = format!(
        "target \"t\" {{\n    sandbox \"strict\"\n    {inputs}\n    outputs \"o\"\n    run #\"{command}\"#\n}}\n"
    );
    space.write("Releasefile.kdl", text);
    space
}

#[test]
fn a_link_behind_a_linked_directory_leads_where_the_kernel_says() {
    let space = strict(
        r#"inputs "inc/**" "way/x" "cfg""#,
        "cat inc/x way/x cfg > {out}; test ! -e common/y",
    );
    space
        .write("vendor/lib/common/y", "right\n")
        .write("common/y", "wrong\n")
        .write("sub/y", "right as well\n")
        .write("y", "wrong as well\n")
        .write("releases/shared.conf", "shared\n");
    space.shell(
        "mkdir vendor/lib/inc sub/deep releases/5; ln -s ../common/y vendor/lib/inc/x
         ln -s vendor/lib/inc inc; ln -s ../y sub/deep/x; ln -s sub/deep way
         ln -s releases/5 current; ln -s current/../shared.conf cfg",
    );
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "right\nright as well\nshared\n");
    space.write("common/y", "other\n").write("y", "other\n");
    space.build([]).ok().is("t fresh");
    space.write("sub/y", "changed\n");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "right\nchanged\nshared\n");
}

#[test]
fn every_link_of_a_chain_counts() {
    let space = strict(r#"inputs "l""#, "cat l > {out}; readlink m >> {out}");
    space.write("f", "same\n").write("g", "same\n");
    space.shell("ln -s m l; ln -s f m");
    space.build([]).ok().is("t ran");
    space.shell("ln -sfn g m");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "same\ng\n");
    space.build([]).ok().is("t fresh");
}

#[test]
fn what_lies_beside_a_repository_in_a_directory_of_the_system_is_hidden() {
    for base in ["/opt", "/var/lib"] {
        let space = Space::below(Path::new(base));
        let text = format!(
            "target \"t\" {{ sandbox \"strict\"; outputs \"o\"; run \"cat {}/secret > {{out}} || true\" }}",
            space.base().display()
        );
        space.write("Releasefile.kdl", text);
        space.write("../secret", "one\n");
        let _ = space.run(["build"]).ok();
        assert_eq!(space.read("o"), "");
    }
}

#[test]
fn a_home_in_a_directory_of_the_system_is_hidden() {
    let space = strict("", "");
    let home = tempfile::tempdir_in("/var/lib").expect("a directory");
    let name = home.path().display();
    let text = format!(
        "target \"t\" {{ sandbox \"strict\"; outputs \"o\"; run \"cat {name}/secret > {{out}} || tool > {{out}}\" }}"
    );
    space.write("Releasefile.kdl", text);
    fs::write(home.path().join("secret"), "secret\n").expect("writes");
    let bin = home.path().join(".tools/bin");
    fs::create_dir_all(&bin).expect("creates");
    space.shell(&format!(
        "printf '#!/bin/sh\\necho tool\\n' > {0}/tool; chmod +x {0}/tool",
        bin.display()
    ));
    let mut rel = space.rel(["build"]);
    rel.env("HOME", home.path())
        .env("PATH", format!("{}:{PATH}", bin.display()));
    let _ = space.finish(&mut rel).ok();
    assert_eq!(space.read("o"), "tool\n");
}

#[test]
fn a_link_that_is_set_anew_is_looked_at_anew() {
    let [out, change, look] = [
        "echo a > $TMPDIR/a; ln -s $TMPDIR/a l",
        "chmod 600 l && echo changed",
        "stat -L -c %s l",
    ];
    let anew = "rm l; ln -s [work]secret.txt l; echo anew";
    let space = strict(
        "",
        &format!("{out}; {change}; {look}; {anew}; {change}; {look} || true; rm l; echo x > {{out}}"),
    );
    space.write("secret.txt", "secretsecret\n");
    space.shell("chmod 644 secret.txt");
    let _ = space.run(["build"]).ok();
    let printed = space.run(["log", "t"]).ok().stdout;
    let (before, after) = printed.split_once("anew").expect("all was done");
    assert!(before.contains("changed\n2"), "{printed}");
    let is_got = |line: &str| ["changed", "13"].contains(&line);
    assert!(!after.lines().any(is_got), "{printed}");
    assert_eq!(space.shell("stat -c %a secret.txt"), "644\n");
}

#[test]
fn a_trace_follows_a_link_that_is_swapped() {
    let space = Space::new(
        r#"target "t" { inputs "v1/f"; outputs "o"; run "ln -s v1 cur; cat cur/f; ln -s v2 next; mv -T next cur; cat cur/f; rm cur; echo x > {out}" }"#,
    );
    space.write("v1/f", "1\n").write("v2/f", "2\n");
    let told = space.run(["check", "--trace", "t"]).fails(1);
    assert!(told.stdout.contains("reads `v2/f`"), "{told}");
}
