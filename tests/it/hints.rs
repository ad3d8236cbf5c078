//! What `rel` says where somebody meant something else, and what it logs of itself.

use crate::space::Space;

const PROJECT: &str = r#"
target "page" { outputs "page"; run "echo hello | tee {out}"; }
host "h" local=#true root="h"
environment "staging" { param "branch" default="main"; use "service" on="h" start="true" status="true"; }
"#;

/// Each command, and what its error and its hint say.
const MEANT: &[(&[&str], &str)] = &[
    (
        &["why", "staging"],
        "error: `staging` is an environment, not a target\n  help: `rel staging --plan` shows what it would do, `rel staging` does it\n",
    ),
    (
        &["build", "staging"],
        "`staging` is an environment, not a target",
    ),
    (
        &["build", "-n", "staging"],
        "`staging` is an environment, not a target",
    ),
    (
        &["plan", "page", "staging"],
        "`staging` is an environment, not a target",
    ),
    (&["--plan"], "help: `rel ENVIRONMENT --plan`\n"),
    (
        &["--rollback", "staging"],
        "help: `rel ENVIRONMENT --rollback`\n",
    ),
    (
        &["rollback", "staging"],
        "error: there is no command `rollback`\n  help: `rel ENVIRONMENT --rollback` restores the former release",
    ),
    (
        &["staging", "main", "rollback"],
        "help: `rel staging --rollback`\n",
    ),
    (&["staging", "main", "plan"], "help: `rel staging --plan`\n"),
    (&["page"], "help: rel build page\n"),
];

#[test]
fn what_was_meant_is_told() {
    let space = Space::new(PROJECT);
    for (args, expected) in MEANT {
        let told = space.run(*args).fails(2).stderr;
        assert!(told.contains(expected), "{args:?}: {told}");
    }
    // Another option is wrong there.
    let args = ["staging", "main", "--rollback", "--foo"];
    let told = space.run(args).fails(2).stderr;
    assert!(!told.contains("ENVIRONMENT"), "{told}");
}

#[test]
fn check_names_the_file_that_it_read() {
    let space = Space::new("");
    space.write("other.kdl", PROJECT);
    let told = space.run(["-f", "other.kdl", "check"]).ok().stdout;
    assert_eq!(told, "other.kdl has no errors: 1 target, 1 environment\n");
}

#[test]
fn who_holds_an_environment_is_known_without_user_and_is_no_run() {
    let space = Space::new(PROJECT);
    let user = space.shell("id -un");
    let mut lock = space.rel(["lock", "staging", "--reason", "looking"]);
    let _ = space.finish(lock.env_remove("USER")).ok();
    let journal = space.shell("cat h/.rel/*/journal");
    assert!(
        journal.contains(&format!("\t{}@", user.trim())),
        "{journal}"
    );
    let mut unlock = space.rel(["unlock", "staging"]);
    let _ = space.finish(unlock.env_remove("USER")).ok();
    assert_eq!(
        space.run(["history", "staging"]).ok().stdout,
        "no run is recorded on the hosts\n"
    );
    let _ = space.run(["staging"]).ok();
    assert_eq!(
        space
            .run(["history", "staging"])
            .ok()
            .stdout
            .lines()
            .count(),
        1
    );
}

#[test]
fn what_is_restored_prints_again_only_when_asked() {
    let space = Space::new(PROJECT);
    let told = |args: &[&str]| space.run(args).ok().stderr.contains("| hello");
    assert!(told(&["build"]));
    for (args, expected) in [(&["build"][..], false), (&["-v", "build"], true)] {
        space.remove("page");
        assert_eq!(told(args), expected);
    }
}

#[test]
fn a_failure_says_what_is_not_declared() {
    let space = Space::new(r#"target "a" { run "echo $TOKEN"; }"#);
    let mut build = space.rel(["build"]);
    let told = space.finish(build.env("TOKEN", "t")).fails(1).stderr;
    assert!(
        told.contains("help: `TOKEN` is set here and not declared: add `env \"TOKEN\"`"),
        "{told}"
    );
}

#[test]
fn twice_verbose_logs_what_rel_does() {
    let space = Space::new(PROJECT);
    let logged = |args: &[&str], expected: &str| {
        let once = space.run([&["-v"], args].concat()).ok().stderr;
        assert!(!once.contains("DEBUG"), "{once}");
        let twice = space.run([&["-vv"], args].concat()).ok().stderr;
        assert!(twice.contains(expected), "{twice}");
    };
    logged(
        &["build", "--force"],
        "command=sh -eu -c echo hello | tee 'page'\n",
    );
    logged(&["staging", "--force"], "h: step service/start: true\n");
}

/// An environment that only shows logs has no use on the hosts of these.
#[test]
fn logs_are_found_on_hosts_that_no_use_names() {
    let space = Space::new(
        r#"
host "h" local=#true root="h"
host "i" local=#true root="i"
environment "logs" { param "service" one-of="a b"; log "{host.root}/{service}*.log" on="h i"; }
"#,
    );
    space.write("h/a.log", "2026-11-28 10:00:00 hello\n");
    space.write("i/a1.log", "2026-11-28 11:00:00 there\n");
    space.write("i/b.log", "2026-11-28 12:00:00 other\n");
    let told = space.run(["log", "logs", "a"]).ok().stdout;
    assert!(told.contains("hello") && told.contains("there"), "{told}");
    assert!(!told.contains("other"), "{told}");
}

#[test]
fn a_runbook_names_hosts_that_are_all_held_back() {
    let space = Space::new(
        r#"
host "h1" local=#true root="h1"
host "h2" local=#true root="h2"
environment "e" {
    use "service" as="a" on="h1" start="true" status="true"
    rollout "kept" on="h2" hold-back="h2" { use "service" as="b" start="true" status="true"; }
}
"#,
    );
    let book = space.run(["runbook", "e"]).ok().stdout;
    assert!(book.contains("Use `b`, on `h2`, held back\n"), "{book}");
    assert!(
        !book.contains("0 waves") && !book.contains("machine of the operator"),
        "{book}"
    );
}

#[test]
fn braces_where_they_mean_nothing_are_told() {
    let space = Space::new(
        r#"
target "a" { inputs "in"; outputs "out"; run "cat ${in} > {out}" }
host "h" local=#true root="h"
environment "e" { each "variant" "x y"; use "service" as="greet-{variant}" on="h" start="true {variant}" status="true"; }
"#,
    );
    let told = space.run(["check"]).fails(2).stderr;
    assert!(told.contains("help: leave out the dollar sign"), "{told}");
    assert!(told.contains("help: a name has no `{…}`"), "{told}");
}
