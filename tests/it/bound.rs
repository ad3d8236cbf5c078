//! Results that name the checkout by its absolute path: they are kept for checkouts at that path.

use insta::assert_snapshot;

use crate::space::Space;

/// A target whose output names the checkout in the way that `made` writes it, and its test, which
/// works on what the output names.
fn named(made: &str, more: &str) -> Space {
    let space = Space::new(&format!(
        r#"
target "env" {{ {more} outputs "env/"; run "mkdir env; {made}" }}
target "tests" {{ needs "env"; inputs "data"; run "echo on $(cat $(cat env/where)/data)" }}
"#
    ));
    space.write("data", "first\n");
    space
}

/// Returns a copy of the checkout's sources beside them, with other data.
fn copy(space: &Space) -> [&'static str; 2] {
    space.shell("mkdir ../other; cp Releasefile.kdl ../other; echo second > ../other/data");
    ["-C", "../other"]
}

const WHERE: &str = "pwd > env/where";

#[test]
fn tests_of_another_checkout_do_not_work_on_this_one() {
    let space = named(WHERE, "");
    space.build([]).ok().is("env ran, tests ran");
    let other = copy(&space);
    space.build(other).ok().is("env ran, tests ran");
    let log = space.run(["-C", "../other", "log", "tests"]).ok();
    assert_snapshot!(log, @"on second");
    // Where it was made it comes back.
    space.remove("env");
    space.build([]).ok().is("env restored, tests fresh");
    // And wherever nothing names the place.
    let space = named("echo . > env/where", "");
    space.build([]).ok().is("env ran, tests ran");
    let other = copy(&space);
    space.build(other).ok().is("env restored, tests ran");
}

/// Text, binaries, what lies across the parts in which a file is hashed, links, products.
#[test]
fn the_path_is_found_wherever_it_stands() {
    let table = [
        "printf '\\\\000%s\\\\000' $PWD > env/where",
        "mkdir env/bin; printf '#!%s/env/bin/python' $PWD > env/bin/pip; chmod 500 env/bin/pip",
        "head -c 262140 /dev/zero > env/big; pwd >> env/big; head -c 300000 /dev/zero >> env/big",
        "ln -s $PWD/data env/link",
        "echo file://$PWD/ > env/url",
        "dd if=/dev/zero of=env/sparse bs=1M count=0 seek=3 2>&1; pwd >> env/sparse",
    ];
    let target = |(i, made): (usize, &&str)| {
        format!(
            "target \"t{i}\" {{ outputs \"{i}/\"; run \"mkdir {i}; {}\" }}\n",
            made.replace("env/", &format!("{i}/"))
        )
    };
    let mut text: String = table.iter().enumerate().map(target).collect();
    text += "target \"product\" { run \"true\"; product \"cat where || pwd | tee where\" }\n";
    let space = Space::new(&text);
    let all: Vec<String> = (0..table.len()).map(|i| format!("t{i}")).collect();
    let is = |how: &str| {
        let all = ["product".to_owned()].into_iter().chain(all.clone());
        all.map(|name| format!("{name} {how}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    space.build([]).ok().is(&is("ran"));
    space.build([]).ok().is(&is("fresh"));
    space.shell("mkdir other; cp Releasefile.kdl where other");
    let _ = space.build(["-C", "other"]).ok().is(&is("ran"));
}

/// The records lie in the checkout, and move with it.
#[test]
fn a_checkout_that_moved_makes_anew_what_names_its_place() {
    let space = named(WHERE, "");
    let other = copy(&space);
    space.build(other).ok().is("env ran, tests ran");
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(30));
        space.build(other).ok().is("env fresh, tests fresh");
    }
    space.shell("mv ../other ../moved");
    let moved = ["-C", "../moved"];
    assert_snapshot!(space.run(["-C", "../moved", "why", "env"]).ok(), @"
    stale  env
           what it made names the checkout by another path than `[space]/moved`
    ");
    space.build(moved).ok().is("env ran, tests ran");
    assert_eq!(
        space.read("../moved/env/where"),
        format!("{}\n", space.base().join("moved").display())
    );
}

#[test]
fn it_is_said_once_and_explained() {
    let space = named(WHERE, "");
    assert_snapshot!(space.run(["-q", "build"]).ok(), @r#"
    --- stderr
    warning: `env` made `env/where`, which names this checkout, `[work]`: the result is kept for this checkout alone
      help: add `cache "here"` if that is meant, `cache "anywhere"` if no process uses that path; `rel why --cache` tells it of all targets
    "#);
    let quiet = |args: &[&str]| assert_eq!(space.run(args).ok().to_string(), "");
    quiet(&["-q", "build", "--force"]);
    space.shell("rm -r env .rel");
    quiet(&["-q", "build"]);
    let why = space.run(["why", "--cache", "env", "tests"]).ok().stdout;
    let told: Vec<&str> = why.lines().filter(|l| l.contains("result")).collect();
    assert_eq!(
        told,
        [
            "         its result is for checkouts at `[work]` alone: `env/where` names it",
            "         its result is for every checkout",
        ],
        "{why}"
    );
    let told = space.ask(["why", "--cache", "env"]);
    let files = serde_json::json!({ "shared": "here", "files": ["env/where"] });
    assert_eq!(told["targets"][0]["cache"], files);
}

#[test]
fn who_knows_better_says_so() {
    let here = named("echo . > env/where", "cache \"here\";");
    here.build([]).ok().is("env ran, tests ran");
    let other = copy(&here);
    here.build(other).ok().is("env ran, tests ran");
    here.remove("env");
    here.build([]).ok().is("env restored, tests fresh");
    let why = here.run(["why", "--cache", "env"]).ok().stdout;
    assert!(why.contains("[work]` alone: `cache \"here\"`"), "{why}");

    let anywhere = named(WHERE, "cache \"anywhere\";");
    let told = anywhere.run(["-q", "build"]).ok();
    assert_eq!(told.stderr, "");
    let other = copy(&anywhere);
    anywhere.build(other).ok().is("env restored, tests ran");
    // What others took is nothing for those who did not say so.
    let text = anywhere
        .read("Releasefile.kdl")
        .replace("cache \"anywhere\";", "");
    anywhere.write("../other/Releasefile.kdl", text);
    anywhere.build(other).ok().is("env ran, tests ran");
}
