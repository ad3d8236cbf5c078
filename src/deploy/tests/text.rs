//! The program as a text, and the prelude in every shell at hand.

use super::*;
use crate::deploy::plan::script;
use crate::deploy::wire::program::{
    ASKED, DETACHED, GUARD, Header, KEEPER, LEASE, LOGS, PRELUDE, STEPS,
};

#[test]
fn a_program_can_be_read() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "all",
        r#"
        param "word"
        step "run" {
            dir "/srv/x y"
            env LANG="C"
            run "echo {word}"
            verify "test -e x"
            undo "rm -f x"
        }
        step "link" { symlink "/srv/current" to="releases/{word}" }
        step "file" { write "/etc/app" "word={word}\n" mode="0640" }
        step "serve" { service "app" run="exec app --word {word}" log="/log/app" ready="app ping" within="5s" }
        step "wait" { wait command="app ping" within="3s" }
        "#,
    );
    space.uses("all on a", &[("word", "it's")]);
    let plan = space.plan();
    let text: String = plan.jobs[0]
        .steps
        .iter()
        .map(|s| {
            let mut step = s.clone();
            step.key = "KEY".into();
            script::step(&step, "/srv")
        })
        .collect();
    insta::assert_snapshot!(text.trim(), @r"
    rel_step 1 all/run KEY
    rel_undo '( cd -- '\''/srv/x y'\'' 2>/dev/null || cd /srv
    LANG=C
    export LANG
    eval '\''rm -f x'\'' )'
    rel_action() {
    cd -- '/srv/x y'
    LANG=C
    export LANG
    eval 'echo '\''it'\''\'\'''\''s'\'''
    }
    rel_verifies=1
    rel_verify() {
    cd -- '/srv/x y'
    LANG=C
    export LANG
    eval 'test -e x'
    }
    rel_do

    rel_step 2 all/link KEY
    rel_action() {
    cd -- /srv
    rel_symlink /srv/current 'releases/it'\''s'
    }
    rel_do

    rel_step 3 all/file KEY
    rel_action() {
    cd -- /srv
    rel_write /etc/app 0640 'word=it'\''s
    '
    }
    rel_do

    rel_step 4 all/serve KEY
    rel_action() {
    cd -- /srv
    rel_service app /log/app 'cd -- /srv
    # run
    exec app --word '\''it'\''\'\'''\''s'\''' '' 'cd -- /srv
    app ping' 5
    }
    rel_do

    rel_step 5 all/wait KEY
    rel_action() {
    cd -- /srv
    rel_wait 3 0.5 'app ping'
    }
    rel_do
    ");
}

#[test]
fn every_shell_takes_the_prelude_and_the_guard() {
    let header = Header {
        nonce: "n".into(),
        root: "/r".into(),
        state: "/r/.rel/e".into(),
        name: String::new(),
        run: "run".into(),
        who: "me".into(),
        purpose: "e".into(),
        lease: std::time::Duration::from_secs(60),
        may_write_foreign: false,
        project_uid: None,
        checkout: None,
    };
    let mut tried = 0;
    for shell in [
        &["dash"][..],
        &["bash", "--posix"],
        &["busybox", "sh"],
        &["sh"],
    ] {
        for text in [
            PRELUDE,
            STEPS,
            DETACHED,
            LEASE,
            ASKED,
            GUARD,
            KEEPER,
            LOGS,
            &header.guard(""),
            &header.guard("rel_look 0 'rel_held'"),
            &header.program(""),
            &header.program("rel_prove_run x"),
        ] {
            let output = std::process::Command::new(shell[0])
                .args(&shell[1..])
                .args(["-n", "-c", text])
                .output();
            // Only `sh` is on every machine.
            let Ok(output) = output else { continue };
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell:?}");
            tried += 1;
        }
    }
    assert!(tried >= 4);
}

#[test]
fn births_tell_processes_of_one_number_apart() {
    let script = format!(
        "{PRELUDE}\nsleep 5 & a=$!; rel_birth $a; b=$rel_b; rel_birth $a; c=$rel_b; test -n \"$b\" && test \"$b\" = \"$c\" || exit 1\nkill -9 $a; wait $a 2>/dev/null; rel_birth $a && exit 2; exit 0"
    );
    for shell in [&["dash"][..], &["bash"], &["busybox", "sh"], &["sh"]] {
        let output = std::process::Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", &script])
            .output();
        let Ok(output) = output else { continue };
        assert!(output.status.success(), "{shell:?} {output:?}");
    }
}
