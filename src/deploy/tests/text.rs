//! The program as a text, and its functions in every shell at hand.

use super::super::*;
use crate::deploy::plan::script;
use std::os::unix::process::CommandExt;

use super::shell::{SHELLS, TEXTS};
use crate::deploy::protocol::program::{COMMON, Header, MANIFEST, STEPS};

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
            script::step(&step, "host", "/srv")
        })
        .collect();
    insta::assert_snapshot!(text.trim(), @r"
    rel_step 1 all/run KEY host
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

    rel_step 2 all/link KEY host
    rel_action() {
    cd -- /srv
    rel_symlink /srv/current 'releases/it'\''s'
    }
    rel_do

    rel_step 3 all/file KEY host
    rel_action() {
    cd -- /srv
    rel_write /etc/app 0640 'word=it'\''s
    '
    }
    rel_do

    rel_step 4 all/serve KEY host
    rel_action() {
    cd -- /srv
    rel_service app /log/app 'cd -- /srv
    # run
    exec app --word '\''it'\''\'\'''\''s'\''' '' 'cd -- /srv
    app ping' 5
    }
    rel_do

    rel_step 5 all/wait KEY host
    rel_only_asks
    rel_action() {
    cd -- /srv
    rel_wait 3 0.5 'app ping'
    }
    rel_do
    ");
}

fn header() -> Header {
    Header {
        nonce: "n".into(),
        root: "/r".into(),
        state: "/r/.rel/e".into(),
        project: String::new(),
        name: String::new(),
        run: "run".into(),
        who: "me".into(),
        purpose: "e".into(),
        lease: std::time::Duration::from_secs(60),
        may_write_foreign: false,
        project_uid: None,
        checkout: None,
    }
}

#[test]
fn every_shell_takes_all_texts() {
    let header = header();
    for shell in [
        &["dash"][..],
        &["bash", "--posix"],
        &["busybox", "sh"],
        &["sh"],
    ] {
        let made = [
            header.guard(""),
            header.guard("rel_look 0 'rel_print_holder'"),
            header.program(""),
            header.program("rel_prove_run x"),
        ];
        let texts = TEXTS.into_iter();
        for text in texts.chain(made.iter().map(String::as_str)) {
            let output = std::process::Command::new(shell[0])
                .args(&shell[1..])
                .args(["-n", "-c", text])
                .output()
                .expect("`tests/run` installs it");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell:?}");
        }
    }
}

#[test]
fn a_guard_without_state_judges_nothing_of_the_login_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    // What would be refused in a directory of rel.
    std::os::unix::fs::symlink("/", dir.path().join("link")).expect("links");
    std::fs::write(dir.path().join("host"), "other - -\n").expect("writes");
    let bye = dir.path().join("bye");
    std::fs::write(&bye, "bye\n").expect("writes");
    let header = Header {
        root: "srv".into(),
        state: String::new(),
        project: String::new(),
        ..header()
    };
    let script = header.guard("rel_look 0 'echo \"<$rel_state>\"'");
    for shell in SHELLS {
        let output = std::process::Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", &script])
            .current_dir(dir.path())
            // It ends its own group.
            .process_group(0)
            .stdin(std::fs::File::open(&bye).expect("opens"))
            .output();
        let output = output.expect("`tests/run` installs it");
        let said = String::from_utf8_lossy(&output.stdout);
        let hello = format!("hello {}/srv\n", dir.path().display());
        assert!(said.contains(&hello), "{shell:?} {said}");
        assert!(
            !said.contains("untrusted") && !said.contains("state "),
            "{shell:?} {said}"
        );
    }
}

#[test]
fn a_way_back_of_an_earlier_try_is_one_whenever_it_comes() {
    // What the earlier and the later attempt left, by suffix; what of the later one stays.
    for (earlier, later, left, is_dropped) in [
        ("", "1.late", "1.late", false),
        ("1", "1.late", "", true),
        ("1.late", "1.late", "", true),
        // It comes last of all, and has no other part.
        ("1.last", "1.late", "", true),
        ("1.last", "1", "1", false),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        for (run, name) in [("a", earlier), ("b", later)] {
            let undo = dir.path().join("undo").join(run);
            std::fs::create_dir_all(&undo).expect("makes");
            if !name.is_empty() {
                std::fs::write(undo.join(name), format!("{run}\n")).expect("writes");
            }
        }
        let script = format!(
            "{COMMON}\n{STEPS}\nrel_nonce=n rel_run=c rel_who=me rel_state=$1\n\
             rel_drop_back b 1 r/s '' a/1"
        );
        let dropped = match is_dropped {
            true => "\u{1e}n dropped 1 b\n",
            false => "",
        };
        for shell in SHELLS {
            let output = std::process::Command::new(shell[0])
                .args(&shell[1..])
                .args(["-c", &script, "sh"])
                .arg(dir.path())
                .output();
            let output = output.expect("`tests/run` installs it");
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                dropped,
                "{earlier} {later} {shell:?}"
            );
            let entries = std::fs::read_dir(dir.path().join("undo/b")).expect("lists");
            let names = entries.map(|e| {
                e.expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            });
            assert_eq!(names.collect::<String>(), left, "{earlier} {later}");
            if is_dropped {
                std::fs::write(dir.path().join("undo/b").join(later), "b\n").expect("writes");
            }
        }
    }
}

#[test]
fn births_tell_processes_of_one_number_apart() {
    let script = format!(
        "{COMMON}\nsleep 5 & a=$!; rel_read_birth $a; b=$rel_birth; rel_read_birth $a; c=$rel_birth; test -n \"$b\" && test \"$b\" = \"$c\" || exit 1\nkill -9 $a; wait $a 2>/dev/null; rel_read_birth $a && exit 2; exit 0"
    );
    for shell in SHELLS {
        let output = std::process::Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", &script])
            .output();
        let output = output.expect("`tests/run` installs it");
        assert!(output.status.success(), "{shell:?} {output:?}");
    }
}

#[test]
fn a_manifest_tells_what_was_edited_in_every_shell() {
    let script = |dir: &std::path::Path| {
        format!(
            "set -u\n{COMMON}\n{MANIFEST}\nrel_tmp={dir}/tmp rel_uid=1\n\
             rel_beside() {{ cat >\"$3\"; }}\nmkdir -p {dir}/tmp {dir}/r/a/b; cd {dir}/r || exit 1\n\
             umask 022; echo 1 >a/same; echo 1 >'a/b/with blank'; echo 1 >'a/back\\slash'\n\
             echo 1 >a/mode; ln -s to a/link; echo 1 >a/gone; rel_seal {dir}/r\n\
             rel_edits {dir}/r && echo nothing\n\
             echo 2 >'a/b/with blank'; echo 2 >'a/back\\slash'; chmod 600 a/mode; rm a/gone\n\
             ln -sfn elsewhere a/link; echo 1 >a/new; echo 1 >own; mkdir a/b/__pycache__\n\
             echo 1 >a/b/__pycache__/x; rel_edits {dir}/r; rm .rel-manifest\n\
             rel_edits {dir}/r || echo unknown\n",
            dir = dir.display(),
        )
    };
    for shell in SHELLS {
        let dir = tempfile::tempdir().expect("a directory");
        let output = std::process::Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", &script(dir.path())])
            .output();
        let output = output.expect("`tests/run` installs it");
        let said = String::from_utf8_lossy(&output.stdout).replace("\\\\", "\\");
        let mut lines: Vec<&str> = said.lines().collect();
        lines[1..].sort_unstable();
        assert_eq!(
            lines,
            [
                "nothing",
                "changed a/b/with blank",
                "changed a/back\\slash",
                "changed a/link",
                "changed a/mode",
                "gone a/gone",
                "new a/new",
                "unknown",
            ],
            "{shell:?} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
