//! Steps that run as another user than the one who logs in.
//!
//! Where the tests run as root that is `nobody`, through `runuser`; else it is oneself,
//! which needs nothing. Who is not root and may be somebody else is let through `sudo` or `doas`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::hosts::Hosts;
use crate::space::{Output, Space, is_alive, wait_until};

fn other(space: &Space) -> String {
    match rustix::process::getuid().is_root() {
        true => String::from("nobody"),
        false => space.shell("id -un").trim().to_owned(),
    }
}

fn app(hosts: &Hosts, steps: &str) -> Space {
    let space = Space::new(&format!(
        "{}\nenvironment \"e\" {{ param \"last\" default=\"true\"; use \"u\" on=\"h1\" user={:?} last=\"{{last}}\"; }}\n",
        hosts.kdl(),
        other(&Space::empty()),
    ));
    let recipe = format!(
        "recipe \"u\" {{\n param \"user\"\n param \"last\" type=\"command\"\n{steps}\n}}\n"
    );
    space.write("recipes/u.kdl", recipe);
    // The other user must be able to work there; with the sticky bit, without being able to
    // replace the state directory.
    let srv = hosts.all[0].srv(".");
    fs::set_permissions(&srv, fs::Permissions::from_mode(0o1777)).expect("sets");
    space
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| format!("{}: {e}", path.display()))
}

#[test]
fn a_step_runs_as_another_user() {
    let hosts = Hosts::start(1);
    let space = app(
        &hosts,
        r#"
    step "own" { run "id -un >own"; check "false" }
    step "other" as="{user}" {
        prepare "mkdir -p {host.root}/d; id -un >{host.root}/d/prepared"
        run "id -un >ran; printf '%s\\n' \"$GREETING\" >>ran; pwd >>ran; umask >/dev/null; {last}"
        dir "{host.root}/d"
        env GREETING="it's \"me\"; $HOME"
        verify "test \"$(id -un)\" = {user} && test \"$GREETING\" && test -e ran"
        undo "id -un >{host.root}/d/undone"
        check "test \"$(id -un)\" = {user} && test -e ran"
    }
    step "wait" as="{user}" { wait command="test \"$(id -un)\" = {user} && test -e d/ran" within="5s"; }
"#
        .replace("; {last}", "")
        .as_str(),
    );
    let host = &hosts.all[0];
    let user = other(&space);
    let output = space.run(["e"]).ok();
    let ran = format!("{user}\nit's \"me\"; $HOME\n{}/d\n", hosts.root(host));
    assert_eq!(read(&host.srv("d/ran")), ran, "{output}");
    assert_eq!(read(&host.srv("d/prepared")), format!("{user}\n"));
    assert_eq!(read(&host.srv("own")), space.shell("id -un"));
    assert!(
        space
            .run(["e", "--plan"])
            .ok()
            .stdout
            .contains("1 step would run")
    );
    let back = space.run(["e", "--rollback"]).ok();
    assert_eq!(read(&host.srv("d/undone")), format!("{user}\n"), "{back}");
}

#[test]
fn a_failing_step_of_another_user_is_told() {
    let hosts = Hosts::start(1);
    let space = app(
        &hosts,
        r#"step "x" as="{user}" { run "echo so far; echo why >&2; exit 7" }"#,
    );
    let output = space.run(["e"]).fails(1);
    assert!(
        output.stderr.contains(" 7\n") && output.stderr.contains("why"),
        "{output}"
    );
    let space = app(&hosts, r#"step "y" as="no-such-user" { run "true" }"#);
    // Told before anything is changed; and in the end, where somebody overrides it.
    let output: Output = space.run(["e"]).fails(1);
    let words = "there is no user no-such-user";
    assert!(output.stderr.contains(words), "{output}");
    let args = ["e", "--override", "user", "--reason", "to see it"];
    let output: Output = space.run(args).fails(1);
    assert!(
        output.stderr.contains("may not run commands so"),
        "{output}"
    );
    let space = app(
        &hosts,
        r#"step "z" as="{user}" { write "{host.root}/z" "z" }"#,
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::wrong_value

      × `as` of step `z` is for commands
       ╭─[recipes/u.kdl:4:6]
     4 │ step "z" as="{user}" { write "{host.root}/z" "z" }
       ·      ─┬─
       ·       ╰── not `run` and not `wait command=`
       ╰────
    "#);
}

/// `rel` as a user who is not root, on this machine, where `sudo` lets that user be root, and
/// `doas`. What they are allowed stands in an `/etc` that only these processes see.
const NOT_ROOT: &str = r#"
    cp -a /etc "$BASE/etc"
    echo 'nobody ALL=(root) NOPASSWD: ALL' >"$BASE/etc/sudoers"
    echo 'permit nopass nobody as root' >"$BASE/etc/doas.conf"
    mount --bind "$BASE/etc" /etc
    if [ "$HOW" = doas ]; then : >"$BASE/none"; mount --bind "$BASE/none" "$(command -v sudo)"; fi
    cp -- "$REL" "$BASE/rel"
    chmod 755 "$BASE"
    chown -R nobody "$BASE/home" "$BASE/cache" "$BASE/run" .
    exec runuser -u nobody -- "$BASE/rel" e
"#;

#[test]
fn sudo_and_doas_do_it_where_runuser_can_not() {
    for how in ["sudo", "doas"] {
        let space = Space::new(
            "host \"a\" local=#true root=\"h\"\nenvironment \"e\" { use \"u\" on=\"a\"; }\n",
        );
        let recipe = r#"recipe "u" {
            step "x" as="root" {
                run "id -un >who; printf '%s\n' \"$GREETING\" >>who"
                env GREETING="it's $HOME"
            }
            step "y" as="root" { run "id -un; exit 7"; undo "id -un >>who" }
        }"#;
        space.write("recipes/u.kdl", recipe).write("h/.keep", "");
        for dir in ["home", "cache", "run"] {
            fs::create_dir_all(space.base().join(dir)).expect("creates");
        }
        let mut rel = space.with_mounts(NOT_ROOT);
        let output = space.finish(rel.env("HOW", how)).fails(1);
        assert!(output.stderr.contains(" 7\n"), "{output}");
        assert_eq!(read(&space.path("h/who")), "root\nit's $HOME\nroot\n");
    }
}

/// Returns the processes whose words hold `mark`.
fn processes(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("lists").flatten();
    let pids = entries.filter_map(|e| e.file_name().into_string().ok());
    let is_it = |pid: &String| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_alive(pid) && String::from_utf8_lossy(&words).contains(mark)
    };
    pids.filter(is_it).collect()
}

#[test]
fn nothing_of_another_users_step_is_left_after_an_interrupt() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    for (number, signal) in [Signal::INT, Signal::KILL].into_iter().enumerate() {
        // A number that no other test sleeps for.
        let mark = format!("{number}{}000", host.port);
        let script = format!("trap '' TERM HUP; sleep 1{mark} & echo on >on{number}; wait");
        let step = format!("step \"x\" as=\"{{user}}\" {{ run {script:?}; }}");
        let space = app(&hosts, &step);
        let job = space.begin(["e"]);
        let on = host.srv(format!("on{number}"));
        wait_until("the step", || on.exists().then_some(()));
        assert!(processes(&mark).len() > 1);
        job.signal(signal);
        let _ = job.finish();
        wait_until("the end of its processes", || {
            processes(&mark).is_empty().then_some(())
        });
    }
}
