//! What people ask of hosts: which there are and whether they answer, what is live on
//! them, what ran there.

use std::fs;

use insta::assert_snapshot;
use serde_json::Value;

use crate::filters::{DIGEST, RUN, TESTER, replaced};
use crate::hosts::{Hosts, Silent, free_port};
use crate::space::{Output, Space};

/// Returns an output without what differs from machine to machine and run to run.
fn shown(hosts: &Hosts, output: &Output) -> String {
    let text = hosts.all.iter().fold(output.to_string(), |text, host| {
        text.replace(&format!("'{}'", hosts.root(host)), "[srv]")
            .replace(&hosts.root(host), "[srv]")
    });
    let patterns = [
        (r"\d{4}-\d\d-\d\d \d\d:\d\d", "[DATE]"),
        RUN,
        DIGEST,
        TESTER,
        (r"[\w-]+@127\.0\.0\.1:\d+", "[USER]@127.0.0.1:[PORT]"),
        (r"port \d+", "port [PORT]"),
        (
            r"(?m)^(  ok .*\[PORT\]) .* \d+ \w+ free$",
            "$1  [SYSTEM] [FREE]",
        ),
        (r"is (\d+s|0s) old", "is [AGE] old"),
        (r"(?m) +$", ""),
    ];
    replaced(&text, &patterns)
}

/// A site on two hosts, with a copy of data on the first.
fn site(hosts: &Hosts, more: &str) -> Space {
    let space = Space::new(&format!(
        r#"
target "page" {{ inputs "page.in"; outputs "build/page"; run "cp page.in {{out}}"; }}
{}
{more}
group "web" "h[1-2]"
environment "staging" {{
    needs "page"
    use "versioned-release" as="site" on="web" artifact="{{page}}" root="{{host.root}}/site" {{
        health "grep -q good artifact/page"
        within "1s"
    }}
    use "note" on="h1" max-age="1h"
}}
"#,
        hosts.kdl()
    ));
    let recipe = r#"recipe "note" { step "note" { write "{host.root}/note" "noted\n"; }; }"#;
    space.write("recipes/note.kdl", recipe);
    space.write("page.in", "good 1\n");
    space
}

#[test]
fn hosts_are_asked_at_once_and_one_that_is_silent_is_not_waited_for() {
    let hosts = Hosts::start(2);
    let silent = Silent::start();
    let more = format!(
        "host \"gone\" ssh=\"nobody@127.0.0.1\" port={}\nhost \"mute\" ssh=\"nobody@127.0.0.1\" port={}\nhost \"here\" local=#true root=\"hosts/here\"\n",
        free_port(),
        silent.port()
    );
    let space = site(&hosts, &more);
    let output = space
        .run(["hosts", "web", "gone", "mute", "--within", "3s"])
        .fails(1);
    assert_snapshot!(shown(&hosts, &output), @"
      ok  h1    ssh [USER]@127.0.0.1:[PORT]  [SYSTEM] [FREE]
      ok  h2    ssh [USER]@127.0.0.1:[PORT]  [SYSTEM] [FREE]
    down  gone  ssh [USER]@127.0.0.1:[PORT]  ssh: connect to host 127.0.0.1 port [PORT]: Connection refused
    down  mute  ssh [USER]@127.0.0.1:[PORT]  no answer within 3s
    2 hosts up, 2 down
    --- exit code 1
    ");
    let all = space.run(["--json", "hosts", "h1", "here"]).ok();
    let told: Value = serde_json::from_str(&all.stdout).expect("JSON");
    assert_eq!(told[0]["is_reachable"], true, "{told:#}");
    assert_eq!(told[1]["reach"], "local", "{told:#}");
    assert!(told[1]["free_kib"].as_u64() > Some(0), "{told:#}");
    assert!(!space.has("hosts"), "asking makes nothing");
    assert_snapshot!(space.run(["hosts", "wep"]).fails(2), @"
    --- stderr
    error: there is no host or group `wep`
      help: did you mean `web`?
    --- exit code 2
    ");
}

#[test]
fn what_is_live_is_told_host_by_host() {
    let hosts = Hosts::start(2);
    let space = site(&hosts, "");
    assert_snapshot!(shown(&hosts, &space.run(["status", "staging"]).ok()), @"
    unknown  h1  never released to
                 site/announce: unknown until `page` is made  (and 5 more steps)
    unknown  h2  never released to
                 site/announce: unknown until `page` is made  (and 4 more steps)
    ");
    let _ = space.run(["staging"]).ok();
    assert_snapshot!(shown(&hosts, &space.run(["status", "staging"]).ok()), @"
    fresh  h1  site [DIGEST], since [DATE] by tester@[MACHINE], note is [AGE] old
    fresh  h2  site [DIGEST], since [DATE] by tester@[MACHINE]
    ");
    // Somebody switches by hand on one host; a note is scribbled on.
    let link = hosts.all[1].srv("site/current");
    fs::remove_file(&link).expect("removes");
    std::os::unix::fs::symlink("releases/other", &link).expect("links");
    fs::write(hosts.all[0].srv("note"), "by hand\n").expect("writes");
    assert_snapshot!(shown(&hosts, &space.run(["status", "staging"]).ok()), @"
    drifted  h1  site [DIGEST], since [DATE] by tester@[MACHINE], note is [AGE] old
                 note/note: `[srv]/note` was changed
    drifted  h2  site other
                 site/switch: points to releases/other  (and 1 more step)
    ");
    // A new page, built and not released.
    space.write("page.in", "good 2\n");
    let _ = space.run(["build"]).ok();
    let told = space.run(["--json", "status", "staging"]).ok();
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(told[0]["state"], "stale", "{told:#}");
    assert!(told[0]["live"]["site"].is_string(), "{told:#}");
    assert!(told[0]["age"]["note"].is_u64(), "{told:#}");
    // Targets are asked as before.
    assert_snapshot!(space.run(["status", "page"]).ok(), @"1 target up to date, 0 not");
}

#[test]
fn what_ran_is_told_out_of_all_journals() {
    let mut hosts = Hosts::start(2);
    let space = site(&hosts, "");
    assert_snapshot!(shown(&hosts, &space.run(["history", "staging"]).ok()), @"no run is recorded on the hosts");
    let _ = space.run(["staging"]).ok();
    space.write("page.in", "bad\n");
    let _ = space.run(["staging"]).fails(1);
    space.write("page.in", "good 2\n");
    let _ = space.run(["staging"]).ok();
    let _ = space.run(["staging", "--rollback"]).ok();
    let output = space.run(["history", "staging"]).ok();
    assert_snapshot!(shown(&hosts, &output), @"
       rollback  [DATE]  tester@[MACHINE]  [RUN]  2 steps undone on h1 h2
    rolled back  [DATE]  tester@[MACHINE]  [RUN]  10 steps of site on h1 h2
         undone  [DATE]  tester@[MACHINE]  [RUN]  4 steps of site on h1 h2, stopped at site/health[[DIGEST]] on h1
             ok  [DATE]  tester@[MACHINE]  [RUN]  11 steps of note site on h1 h2
    ");
    let told = space.run(["--json", "history", "staging", "-n", "1"]).ok();
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(told["runs"].as_array().map(Vec::len), Some(1), "{told:#}");
    assert_eq!(told["runs"][0]["end"], "rollback", "{told:#}");
    // What one host knows is reported when the other is down.
    hosts.all[1].stop();
    let output = space.run(["history", "staging", "-n", "1"]).ok();
    assert_snapshot!(shown(&hosts, &output), @"
       rollback  [DATE]  tester@[MACHINE]  [RUN]  1 step undone on h1
           down  h2  ssh: connect to host 127.0.0.1 port [PORT]: Connection refused
    and 3 older runs
    ");
    assert_snapshot!(shown(&hosts, &space.run(["status", "staging"]).ok()), @"
    stale  h1  site [DIGEST], since [DATE] by tester@[MACHINE], note is [AGE] old
               site/health[[DIGEST]]: never done here  (and 2 more steps)
     down  h2  ssh: connect to host 127.0.0.1 port [PORT]: Connection refused
    ");
}

/// What is live is so since its link was switched or restored, whatever else was done since.
#[test]
fn since_is_that_of_what_is_live() {
    let space = Space::new(
        r#"
host "h" local=#true root="hosts/h"
var "v" "1"
var "w" "1"
environment "e" { use "app" on="h" v="{v}"; use "other" on="h" w="{w}"; }
"#,
    );
    space.write(
        "recipes/app.kdl",
        r#"recipe "app" { param "v"; step "link" { symlink "{host.root}/current" to="{v}"; } }"#,
    );
    space.write(
        "recipes/other.kdl",
        r#"recipe "other" { param "w"; step "file" { write "{host.root}/file" "{w}"; } }"#,
    );
    let run_of = || {
        let output = space.run(["status", "e", "--json"]).ok();
        let said: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let one = &said[0];
        (
            one["live"]["app"].to_string(),
            one["run"].to_string(),
            one["since"].clone(),
        )
    };
    let _ = space.run(["e"]).ok();
    let (live, first, since) = run_of();
    assert_eq!(live, "\"1\"");
    assert!(since.is_u64(), "{since}");
    let _ = space.run(["e", "--var", "w=2"]).ok();
    assert_eq!(run_of(), (live.clone(), first.clone(), since));
    let _ = space.run(["e", "--var", "w=2", "--var", "v=2"]).ok();
    let (_, second, _) = run_of();
    assert_ne!(second, first);
    let _ = space.run(["e", "--rollback"]).ok();
    let (back, third, _) = run_of();
    assert_eq!(back, live);
    assert!(third != first && third != second, "{third}");
}
