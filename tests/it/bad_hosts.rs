//! Hosts that fail while they are worked on: cut off, dead, full, not writable, not
//! complete. The old release goes on serving, and the message says where it stopped.

use std::fs;
use std::os::unix::fs::symlink;

use insta::assert_snapshot;
use regex::Regex;

use crate::filters::{DIGEST, replaced};
use crate::hosts::{Host, Hosts};
use crate::space::{Output, Space, wait_until};

/// A site whose second use goes on, once the file `slow` is on the host, until it is ended.
fn site(hosts: &Hosts) -> Space {
    let space = Space::new(&format!(
        r#"
target "page" {{ inputs "page.in"; outputs "build/page"; run "cp page.in {{out}}"; }}
{}
environment "staging" {{
    needs "page"
    use "before" on="h1" page="{{page}}"
    use "versioned-release" as="site" on="h1" artifact="{{page}}" root="{{host.root}}/site"
}}
"#,
        hosts.kdl()
    ));
    // Notes the process that serves this connection, so that a test can end just that.
    let recipe = r#"
recipe "before" {
    param "page" type="artifact"
    step "count" { run "echo {page.id} >> {host.root}/counted" }
    step "slow" on-change="count" {
        dir "{host.root}"
        run """
            echo {page.id} >> tried
            test -e slow || exit 0
            p=$$
            while [ "$(cat /proc/$p/comm)" != sshd ]; do
                p=$(sed -n 's/^PPid:[^0-9]*//p' /proc/$p/status)
            done
            echo $p > line
            sleep 1000 &
            echo $! > child
            wait
            """
    }
}
"#;
    space
        .write("recipes/before.kdl", recipe)
        .write("page.in", "one\n");
    let _ = space.run(["staging"]).ok();
    fs::write(hosts.all[0].srv("slow"), "").expect("writes");
    space.write("page.in", "two\n");
    space
}

/// Returns what a host serves.
fn served(host: &Host) -> String {
    fs::read_to_string(host.srv("site/current/artifact/page")).expect("serves")
}

/// Waits until the slow step is at work, and returns the process behind the connection.
fn at_work(host: &Host) -> String {
    wait_until("the slow step", || {
        let text = |file| fs::read_to_string(host.srv(file)).ok();
        text("child").filter(|t| t.ends_with('\n'))?;
        text("line").map(|t| t.trim().to_owned())
    })
}

/// Waits until nothing of the step runs on the host, and its journal knows.
fn ended(space: &Space, hosts: &Hosts) {
    let host = &hosts.all[0];
    let root = hosts.root(host);
    wait_until("the end of the step", || {
        let script = format!("kill -0 $(cat {root}/child) 2>/dev/null && echo alive");
        (!hosts.ssh(space, host, &script).stdout.contains("alive")).then_some(())
    });
    wait_until("the journal", || {
        let journal = fs::read_to_string(host.srv(".rel/staging/journal")).expect("reads");
        journal.contains("\tinterrupted\t").then_some(())
    });
}

/// The next run goes on at the step that did not end, and runs no finished one again.
fn resumed(space: &Space, hosts: &Hosts) {
    let host = &hosts.all[0];
    assert_eq!(served(host), "one\n");
    fs::remove_file(host.srv("slow")).expect("removes");
    let _ = space.run(["staging"]).ok();
    assert_eq!(served(host), "two\n");
    assert_eq!(
        (host.lines("counted").len(), host.lines("tried").len()),
        (2, 3)
    );
}

/// Returns what was printed, without what differs from run to run.
fn shown(hosts: &Hosts, output: &Output) -> String {
    let ports = hosts.all.iter().fold(output.to_string(), |text, host| {
        text.replace(&host.port.to_string(), "[PORT]")
    });
    let patterns = [
        DIGEST,
        (r" -o (\w+)=\S+", ""),
        (r"-p \[PORT\] \S+@", "-p [PORT] [USER]@"),
    ];
    replaced(&hosts.masked(&ports), &patterns)
}

#[test]
fn a_line_that_is_cut_ends_the_step_and_the_next_run_goes_on() {
    let hosts = Hosts::start(1);
    let space = site(&hosts);
    let job = space.begin(["-q", "staging"]);
    let line = at_work(&hosts.all[0]);
    let _ = hosts.ssh(&space, &hosts.all[0], &format!("kill -KILL {line}"));
    let output = job.finish().fails(1);
    assert_snapshot!(shown(&hosts, &output), @"
    --- stderr
    error: the connection to host `h1` ended
      status  255
      step    before/slow
      log     .rel/logs/staging.log
      help: run the same command again: it checks what was done on the host and continues
    --- exit code 1
    ");
    ended(&space, &hosts);
    resumed(&space, &hosts);
}

#[test]
fn a_line_that_dies_without_a_word_is_noticed() {
    let hosts = Hosts::start(1);
    let space = site(&hosts);
    let job = space.begin(["-q", "staging"]);
    let line = at_work(&hosts.all[0]);
    let _ = hosts.ssh(&space, &hosts.all[0], &format!("kill -STOP {line}"));
    // Within the half minute that the documents promise, and never without end.
    let output = job.finish().fails(1);
    assert_snapshot!(shown(&hosts, &output), @"
    --- stderr
    error: the connection to host `h1` ended
      status  255
      step    before/slow
      log     .rel/logs/staging.log
      help: run the same command again: it checks what was done on the host and continues
    --- exit code 1
    ");
    ended(&space, &hosts);
    resumed(&space, &hosts);
}

#[test]
fn a_host_that_goes_down_in_the_middle_is_named_and_gone_on_with() {
    let mut hosts = Hosts::start(1);
    let space = site(&hosts);
    let job = space.begin(["-q", "staging"]);
    let _ = at_work(&hosts.all[0]);
    hosts.all[0].stop();
    let output = job.finish().fails(1);
    assert_snapshot!(shown(&hosts, &output), @"
    --- stderr
    error: the connection to host `h1` ended
      status  255
      step    before/slow
      log     .rel/logs/staging.log
      help: run the same command again: it checks what was done on the host and continues
    --- exit code 1
    ");
    let down = space.run(["-q", "staging"]).fails(1);
    assert!(down.stderr.contains("host `h1`"), "{down}");
    hosts.reboot(0);
    resumed(&space, &hosts);
}

#[test]
fn a_host_on_which_nothing_can_be_written() {
    let hosts = Hosts::start(1);
    let root = hosts.root(&hosts.all[0]);
    let nodes = hosts.kdl();
    assert!(nodes.contains(&format!("root=\"{root}\"")), "{nodes}");
    // There even root makes no directory.
    let nodes = nodes.replace(&format!("root=\"{root}\""), "root=\"/proc/site\"");
    let space = Space::new(&format!(
        "{nodes}environment \"staging\" {{ use \"say\" on=\"h1\"; }}\n"
    ));
    let recipe = "recipe \"say\" { step \"say\" { run \"echo hello\"; }; }\n";
    space.write("recipes/say.kdl", recipe);
    let plan = space.run(["staging", "--plan"]).fails(1);
    assert_snapshot!(shown(&hosts, &plan), @"
    h1  say (say)
          run  say         echo hello  never done here
    say  no rollback: say
    staging: 1 step would run, 0 up to date, on 1 host
    --- stderr
    error: the journal of host `h1` cannot be written
      says  no file can be made in /proc
    --- exit code 1
    ");
    let output = space.run(["-q", "staging"]).fails(1);
    assert_snapshot!(shown(&hosts, &output), @"
    --- stderr
    error: the journal of host `h1` cannot be written
      directory  /proc/site/.rel/staging
      says       it cannot be made
    --- exit code 1
    ");
}

#[test]
fn a_host_without_a_program_that_is_needed() {
    let space = Space::new(
        r#"
host "a" local=#true root="hosts/a"
environment "staging" { use "say" on="a"; }
"#,
    );
    let recipe = "recipe \"say\" { step \"say\" { run \"echo hello\"; }; }\n";
    space.write("recipes/say.kdl", recipe);
    let bin = space.base().join("bin");
    fs::create_dir(&bin).expect("creates");
    for dir in ["/usr/bin", "/bin"] {
        for entry in fs::read_dir(dir).expect("lists").flatten() {
            if entry.file_name() != "setsid" {
                let _ = symlink(entry.path(), bin.join(entry.file_name()));
            }
        }
    }
    let output = space.finish(space.rel(["-q", "staging"]).env("PATH", &bin));
    assert_snapshot!(output, @"
    --- stderr
    error: host `a` lacks programs that rel needs
      missing  setsid
      help: install the core utilities, util-linux, tar and sed there
    --- exit code 1
    ");
    assert!(!space.has("hosts/a/.rel"), "nothing was begun");
}

/// A file system that is full takes directories, and nothing in them.
#[test]
fn a_full_place_for_temporary_files_is_told_and_not_used() {
    let space = Space::with_steps(r#"step "one" { run "echo {v} >>done"; }"#);
    let script = r#"
        mkdir "$BASE/full"
        mount -t tmpfs -o size=64k none "$BASE/full"
        head -c 65536 /dev/zero >"$BASE/full/file" || true
        TMPDIR=$BASE/full "$REL" e
        ls "$BASE/full"
        "#;
    let output = space.finish(&mut space.with_mounts(script)).ok();
    assert_eq!(output.stdout.lines().last(), Some("file"));
    let words = "/full of host `h` is full: temporary files lie in /";
    assert!(output.stderr.contains(words), "{output}");
    assert_eq!(space.read("hosts/h/done"), "1\n");
}

#[test]
fn a_host_without_room_for_temporary_files_is_told() {
    let space = Space::with_steps(r#"step "one" { run "echo {v} >>done"; }"#);
    let script = r#"
        cd "$(TMPDIR=/var/tmp mktemp -d)"
        trap 'cd /; rm -rf "$OLDPWD"' EXIT
        cp -R "$WORK/." .
        cp "$REL" program
        for place in /dev/shm /tmp; do
            mount -t tmpfs -o size=64k none "$place"
            head -c 65536 /dev/zero >"$place/file" || true
        done
        XDG_CACHE_HOME=$PWD/cache ./program e
        "#;
    let output = space.finish(&mut space.with_mounts(script)).fails(1);
    let words = "host `h` has no directory for temporary files";
    assert!(output.stderr.contains(words), "{output}");
    assert!(output.stderr.contains("is full"), "{output}");
}

#[test]
fn a_host_whose_disk_is_full_serves_the_old_release() {
    let space = Space::new(
        r#"
target "page" { inputs "page.in"; outputs "build/page"; run "cp page.in {out}"; }
host "a" local=#true root="hosts/a"
environment "staging" {
    needs "page"
    use "versioned-release" as="site" on="a" artifact="{page}" root="{host.root}/site"
}
"#,
    );
    space.write("page.in", "one\n").write("hosts/a/keep", "");
    let big: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    space.write("big", big);
    let script = r#"
        mount -t tmpfs -o size=1m none hosts/a
        "$REL" -q staging
        cp big page.in
        "$REL" -q staging || echo "exit code $?"
        cat hosts/a/site/current/artifact/page
        echo two > page.in
        "$REL" -q staging
        cat hosts/a/site/current/artifact/page
        "#;
    let output = space.finish(&mut space.with_mounts(script)).ok();
    let digest = Regex::new(r"\b[0-9a-f]{12}\b").expect("a pattern");
    let wrote = Regex::new(r"only \d+ of").expect("a pattern");
    let output = output.to_string();
    let output = wrote.replace_all(&output, "only [SOME] of");
    assert_snapshot!(digest.replace_all(&output, "[DIGEST]"), @"
    exit code 1
    one
    two
    --- stderr
    error: host `a` could not take `[work]/hosts/a/.rel/staging/blobs/82fa05417c03925cb7e8fd2bc2e9f2e2a1c8c421427ccdba1ab0091261e3a840`
      says  tar: page: Wrote only [SOME] of 10240 bytes
    ");
}

#[test]
fn an_old_release_that_can_not_be_removed_is_told_and_takes_nothing_back() {
    let space = Space::new(
        r#"
target "page" { inputs "page.in"; outputs "build/page"; run "cp page.in {out}"; }
host "a" local=#true root="hosts/a"
environment "staging" {
    needs "page"
    use "versioned-release" as="site" on="a" artifact="{page}" root="{host.root}/site" keep=1
}
"#,
    );
    // What is mounted cannot be removed, not even by root.
    let script = r#"
        release() { echo "$1" >page.in; "$REL" -q staging; cat hosts/a/site/current/artifact/page; }
        release one
        mkdir hosts/a/site/current/mounted
        mount -t tmpfs none hosts/a/site/current/mounted
        release two
        release three
        release four
        umount hosts/a/site/releases/*/mounted
        release five
        ls hosts/a/site/releases | wc -l
        "#;
    let output = space.finish(&mut space.with_mounts(script)).ok();
    let digest = Regex::new(r"\b[0-9a-f]{12}\b").expect("a pattern");
    assert_snapshot!(digest.replace_all(&output.to_string(), "[DIGEST]"), @"
    one
    two
    three
    four
    five
    2
    --- stderr
    warning: site/prune on host `a`: [work]/hosts/a/site/releases/[DIGEST] could not be removed, and will be tried again: rm: cannot remove './[DIGEST].rel-gone/mounted': Device or resource busy
    warning: site/prune on host `a`: [work]/hosts/a/site/releases/[DIGEST] could not be removed, and will be tried again: rm: cannot remove './[DIGEST].rel-gone/mounted': Device or resource busy
    ");
}

#[test]
fn a_host_whose_disk_became_read_only() {
    let space = Space::new(
        r#"
var "word" "one"
host "a" local=#true root="hosts/a"
environment "staging" { use "say" on="a" word="{word}"; }
"#,
    );
    let recipe = r#"
recipe "say" {
    param "word"
    step "say" { write "{host.root}/said" "{word}\n" }
}
"#;
    space
        .write("recipes/say.kdl", recipe)
        .write("hosts/a/keep", "");
    let script = r#"
        mount --bind hosts/a hosts/a
        "$REL" -q staging
        mount -o remount,ro,bind hosts/a
        "$REL" -q staging
        "$REL" staging --plan --var word=two || echo "exit code $?"
        "$REL" -q staging --var word=two || echo "exit code $?"
        cat hosts/a/said
        "#;
    let output = space.finish(&mut space.with_mounts(script)).ok();
    assert_snapshot!(output, @"
    a  say (say)
          run  say         write [work]/hosts/a/said  changed since run [RUN]
               --- a:[work]/hosts/a/said
               +++ a:[work]/hosts/a/said
               @@ -1 +1 @@
               -one
               +two
    say  rollback: say
    staging: 1 step would run, 0 up to date, on 1 host
    exit code 1
    exit code 1
    one
    --- stderr
    error: the journal of host `a` cannot be written
      says  [work]/hosts/a/.rel/staging cannot be written
    error: the journal of host `a` cannot be written
      directory  [work]/hosts/a/.rel/staging
      says       nothing can be written there
    ");
}
