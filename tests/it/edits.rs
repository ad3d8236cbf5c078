//! Releases that somebody has edited where they were installed.

use std::fs;

use insta::assert_snapshot;

use crate::filters::replaced;
use crate::space::Space;

/// An environment whose releases are an artifact, and a directory that their installation makes.
fn site() -> Space {
    Space::new(
        r#"
target "a" { inputs "v"; outputs "a.txt"; run "cp v {out}"; }
host "h" local=#true root="h"
environment "live" {
    needs "a"
    use "versioned-release" as="app" on="h" artifact="{a}" root="{host.root}/app" \
        install="mkdir -p venv/bin venv/__pycache__; echo lib >venv/lib; ln -s /bin/sh venv/bin/sh"
}
"#,
    )
}

fn release(space: &Space, version: &str) -> String {
    space.write("v", format!("{version}\n"));
    let _ = space.run(["-q", "live"]).ok();
    let link = fs::read_link(space.path("h/app/current")).expect("a link");
    link.to_string_lossy().into_owned()
}

fn deep(space: &Space) -> String {
    space.run(["status", "live", "--deep"]).ok().stdout
}

fn shown(text: &str, releases: &[&str]) -> String {
    let mut text = text.to_owned();
    for (at, link) in releases.iter().enumerate() {
        let name = link.trim_start_matches("releases/");
        text = text.replace(name, &format!("[{}]", at + 1));
    }
    replaced(&text, &[(r"since .*|run \d\S+", "[SINCE]")])
}

#[test]
fn an_edit_in_the_live_release_is_drift_to_who_looks_deep() {
    let space = site();
    let one = release(&space, "1");
    // What it makes while it runs is its own.
    space
        .write("h/app/current/run.pid", "1\n")
        .write("h/app/current/var/log", "up\n")
        .write("h/app/current/venv/__pycache__/lib.pyc", "x");
    let sound = deep(&space);
    assert!(sound.starts_with("  fresh  h  app"), "{sound}");
    space
        .write("h/app/current/venv/lib", "fixed by hand\n")
        .write("h/app/current/venv/more/new", "")
        .remove("h/app/current/venv/bin/sh");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(space.path("h/app/current/artifact/a.txt"), mode).expect("sets a mode");
    let usual = space.run(["status", "live"]).ok().stdout;
    assert!(usual.starts_with("  fresh  h  app"), "{usual}");
    assert_snapshot!(shown(&deep(&space), &[&one]), @"
    drifted  h  app [1], [SINCE]
     edited  h  app [1]: changed artifact/a.txt
     edited  h  app [1]: gone venv/bin/sh
     edited  h  app [1]: changed venv/lib
     edited  h  app [1]: new venv/more
     edited  h  app [1]: new venv/more/new
    ");
    let json = space.ask(["status", "live", "--deep"]);
    assert_eq!(json[0]["state"], "drifted");
    assert_eq!(json[0]["edits"]["app"][1], "gone venv/bin/sh", "{json}");
    // It is a question of hosts.
    let refused = space.run(["status", "a", "--deep"]).fails(2).stderr;
    assert!(
        refused.contains("`rel status ENVIRONMENT --deep`"),
        "{refused}"
    );
}

#[test]
fn a_rollback_leads_to_no_release_that_was_edited_since() {
    let space = site();
    let one = release(&space, "1");
    let two = release(&space, "2");
    space.write(format!("h/app/{one}/venv/lib"), "fixed by hand\n");
    space.write(format!("h/app/{one}/artifact/b.txt"), "");
    let refused = space.run(["live", "--rollback"]).fails(1);
    assert_snapshot!(shown(&refused.to_string(), &[&one, &two]), @"
    --- stderr
    error: `live` cannot be rolled back on host `h`
      edited  [work]/h/app/releases/[1] is not as it was installed: changed venv/lib, new artifact/b.txt
      help: nothing was changed; find out who changed it; to roll back anyway: `--rollback --force` (the current content of a file is then kept beside it)
    --- exit code 1
    ");
    let plan = space.run(["live", "--rollback", "--plan"]);
    assert_snapshot!(shown(&plan.to_string(), &[&one, &two]), @"
    h  app/switch  [work]/h/app/current: releases/[2] -> releases/[1]
    h  stopped: it was edited afterwards
               [work]/h/app/releases/[1] is not as it was installed: changed venv/lib, new artifact/b.txt
    live: 1 step would be rolled back, on 1 host  run [RUN]
    ");
    // A release goes on: where it is rolled back by itself, that release is what was live.
    let three = release(&space, "3");
    let _ = space.run(["-q", "live", "--rollback"]).ok();
    let _ = space.run(["-q", "live", "--rollback", "--force"]).ok();
    assert_eq!(space.read("h/app/current/venv/lib"), "fixed by hand\n");
    assert_ne!(three, one);
}

#[test]
fn a_release_without_an_installation_has_a_manifest_too() {
    let space = Space::new(
        r#"
target "a" { inputs "v"; outputs "a.txt"; run "cp v {out}"; }
host "h" local=#true root="h"
environment "live" { needs "a"; use "versioned-release" as="app" on="h" artifact="{a}" root="{host.root}/app"; }
"#,
    );
    let one = release(&space, "1");
    assert!(!deep(&space).contains("edited"));
    fs::remove_file(space.path("h/app/current/artifact/a.txt")).expect("removes");
    let words = shown(&deep(&space), &[&one]);
    assert!(
        words.contains("edited  h  app [1]: gone artifact/a.txt"),
        "{words}"
    );
    // A release of the time before manifests is nothing that can be judged.
    space.remove("h/app/current/.rel-manifest");
    assert!(!deep(&space).contains("edited"));
}
