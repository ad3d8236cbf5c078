//! root on a host whose directories other users can change: what it refuses, and what it does
//! where it is allowed to.
//!
//! These tests need two users. root has them; anybody else gets them in a user namespace. The
//! other user has the number 1.

use std::path::Path;
use std::process::Command;

use crate::space::{Output, Space};

/// How scripts begin: `other` runs a command as the other user.
const TWO_USERS: &str = "
umask 022
chmod 755 \"$BASE\" .
other() { setpriv --reuid=1 --regid=1 --clear-groups -- \"$@\"; }
rel() { timeout 60 \"$REL\" \"$@\"; }
";

/// Runs a script as root, with another user at hand.
fn as_root(space: &Space, script: &str) -> Output {
    space.finish(&mut space.by_root(&format!("{TWO_USERS}{script}")))
}

/// Returns a checkout whose environment `e` has these steps. They find a directory of the other
/// user as `{app}`, a text, two artifacts and another host.
fn app(steps: &str, on_use: &str) -> Space {
    let space = Space::empty();
    let app = space.path("app").display().to_string();
    space.write(
        "Releasefile.kdl",
        format!(
            r#"
            var "text" "one"
            host "h" local=#true root="host"
            host "from" local=#true root="from"
            target "wheel" {{ outputs "wheel/"; run "mkdir -p wheel; echo 1 >wheel/a; echo 2 >wheel/b"; }}
            target "file" {{ outputs "file"; run "echo file >file"; }}
            environment "e" {{
                needs "wheel" "file"
                use "u" on="h" from="from" app="{app}" text="{{text}}" wheel="{{wheel}}" file="{{file}}" {on_use}
            }}
            "#
        ),
    );
    space.write(
        "recipes/u.kdl",
        format!(
            r#"recipe "u" {{
            param "app"
            param "text"
            param "wheel" type="artifact"
            param "file" type="artifact"
            {steps}
            }}"#
        ),
    );
    space
}

/// Makes the directory of the other user, and what the other host has.
const SETUP: &str = "mkdir -p app from; echo x >from/x; chown 1:1 app\n";

/// Actions that make something in `{app}`, and what stands there afterwards.
const ACTIONS: [(&str, &str); 7] = [
    (r#"write "{app}/conf" "{text}\n""#, "conf"),
    (
        r#"write "{app}/a/b/conf" "{text}\n" owner="1:1""#,
        "a/b/conf",
    ),
    (r#"symlink "{app}/link" to="{text}""#, "link"),
    (r#"put "{wheel}" to="{app}/tree/""#, "tree/a"),
    (r#"put "{file}" to="{app}/file""#, "file"),
    (r#"put "{from.root}" from="from" to="{app}/copy""#, "copy/x"),
    (
        r#"service "web" run="echo up; exec sleep 30" log="{app}/web.log""#,
        "web.log",
    ),
];

#[test]
fn root_writes_where_another_user_can_change_files_only_if_it_is_allowed() {
    for (action, made) in ACTIONS {
        let step = |action: &str| format!("step \"s\" {{ {action}; }}");
        let space = app(&step(action), "");
        let script = format!(
            "{SETUP}rel -q build; rel e --plan --plan-out p; rel apply p && echo applied; rel -q e || echo refused; ls -A app"
        );
        let output = as_root(&space, &script).ok();
        assert!(
            output.stdout.contains("`u/s` is refused"),
            "{action}: {output}"
        );
        assert!(output.stdout.ends_with("refused\n"), "{action}: {output}");
        assert!(!output.stdout.contains("applied\n"), "{action}: {output}");
        // No name goes over it.
        assert!(!output.stderr.contains("--override"), "{action}: {output}");
        let why = "/app can be changed by the user ";
        assert!(output.stderr.contains(why), "{action}: {output}");
        assert!(
            output.stderr.contains("nothing was changed"),
            "{action}: {output}"
        );
        let (releasefile, recipe) = (space.read("Releasefile.kdl"), space.read("recipes/u.kdl"));
        let yes = "into-foreign=#true";
        for (releasefile, recipe) in [
            (
                releasefile.clone(),
                recipe.replace(action, &format!("{action} {yes}")),
            ),
            (
                releasefile.replace("use \"u\"", &format!("use \"u\" {yes}")),
                recipe.clone(),
            ),
            (
                releasefile.replace("root=\"host\"", &format!("root=\"host\" {yes}")),
                recipe,
            ),
        ] {
            space
                .write("Releasefile.kdl", releasefile)
                .write("recipes/u.kdl", recipe);
            let script = format!(
                "rel -q e; test -e app/{made} || test -L app/{made}; rel e --plan; rel e --force --plan
                test -z \"$(ls -A app | grep '^.rel-')\"; test ! -s host/.rel/e/private
                rel -q e --rollback || test $? = 2; rm -rf app/* host"
            );
            let output = as_root(&space, &script).ok();
            assert!(
                output.stdout.contains("nothing to do"),
                "{action}: {output}"
            );
            assert!(
                output.stdout.contains("writes where other users can: "),
                "{action}: {output}"
            );
        }
    }
}

/// What the other user puts there, a step that would follow it, and why it fails.
const TRAPS: [(&str, &str, &str); 10] = [
    (
        "ln -s ../precious/victim app/web.log",
        r#"service "web" run="echo up; exec sleep 30" log="{app}/web.log""#,
        LOG,
    ),
    (
        "ln ../work/precious/victim app/web.log",
        r#"service "web" run="echo up; exec sleep 30" log="{app}/web.log""#,
        LOG,
    ),
    (
        "ln -s ../precious app/d",
        r#"write "{app}/d/victim" "{text}\n""#,
        LINK,
    ),
    (
        "ln -s ../precious app/d",
        r#"write "{app}/d/e/victim" "{text}\n""#,
        LINK,
    ),
    (
        "ln -s ../precious app/d",
        r#"symlink "{app}/d/victim" to="{text}""#,
        LINK,
    ),
    (
        "ln -s ../precious app/d",
        r#"put "{wheel}" to="{app}/d/""#,
        "and root would write to ",
    ),
    (
        "ln -s ../precious app/d",
        r#"put "{file}" to="{app}/d/victim""#,
        LINK,
    ),
    (
        "mkdir app/d; ln -s ../../precious app/d/a",
        r#"put "{wheel}" to="{app}/d/""#,
        "and root would write to ",
    ),
    (
        "ln -s ../precious app/d",
        r#"put "{from.root}" from="from" to="{app}/d/victim""#,
        LINK,
    ),
    (
        "mkfifo app/conf",
        r#"write "{app}/conf" "{text}\n""#,
        "/app/conf is not a file",
    ),
];

const LINK: &str = "/app/d is a symbolic link that another user can change";
const LOG: &str = "/app/web.log is a link, or has another name, or belongs to another user";

#[test]
fn links_of_another_user_lead_root_nowhere() {
    for (trap, action, why) in TRAPS {
        let space = app(&format!("step \"s\" {{ {action}; }}"), "into-foreign=#true");
        let script = format!(
            "{SETUP}mkdir precious; echo root >precious/victim; chmod 600 precious/victim
            if ! other sh -c '{trap}' 2>/dev/null; then {trap}; fi
            rel -q e && echo went
            test \"$(ls -A precious)\" = victim
            test \"$(stat -c %u:%a precious/victim)\" = 0:600; test \"$(cat precious/victim)\" = root"
        );
        let output = as_root(&space, &script).ok();
        assert_eq!(output.stdout, "", "{trap}: {action}: {output}");
        assert!(output.stderr.contains(why), "{trap}: {action}: {output}");
    }
    // What stands at the very place of a file is replaced, and not followed.
    for (trap, action, now) in [
        (
            "ln -s ../precious/victim app/conf",
            r#"write "{app}/conf" "{text}\n" owner="1:1""#,
            "one",
        ),
        (
            "ln -s ../precious/victim app/conf",
            r#"put "{file}" to="{app}/conf""#,
            "file",
        ),
        (
            "ln -s ../precious/victim app/conf.rel-new",
            r#"write "{app}/conf" "{text}\n" owner="1:1""#,
            "one",
        ),
        (
            "mkdir app/conf.rel-new",
            r#"write "{app}/conf" "{text}\n" owner="1:1""#,
            "one",
        ),
    ] {
        let space = app(&format!("step \"s\" {{ {action}; }}"), "into-foreign=#true");
        let script = format!(
            "{SETUP}mkdir precious; echo root >precious/victim; chmod 600 precious/victim
            other sh -c '{trap}'; rel -q e; cat app/conf
            # The rollback: what is kept beside follows no link, to a file or to a directory.
            other sh -c 'echo edited >app/conf; ln -s ../precious/victim app/conf.rel-saved
                ln -s ../precious app/conf.rel-saved.2'
            rel -q e --rollback --force 2>/dev/null || test $? = 2
            test \"$(ls -A precious)\" = victim
            test \"$(stat -c %u:%a precious/victim)\" = 0:600; test \"$(cat precious/victim)\" = root"
        );
        let output = as_root(&space, &script).ok();
        assert_eq!(
            output.stdout,
            format!("{now}\n"),
            "{trap}: {action}: {output}"
        );
    }
}

#[test]
fn what_a_link_of_another_user_leads_to_is_not_copied() {
    let steps = r#"step "s" { run "echo more >more; rel_append {app}/list more"; }"#;
    let space = app(steps, "into-foreign=#true");
    let script = format!(
        "{SETUP}mkdir precious; echo root >precious/victim; chmod 600 precious/victim
        other ln -s ../precious/victim app/list
        rel -q e >out 2>&1 && echo went; cat out; test -L app/list; test \"$(ls -A app)\" = list
        rm app/list; other sh -c 'umask 077; echo one >app/list'
        rel -q e; cat app/list; stat -c %u:%a app/list"
    );
    let output = as_root(&space, &script).ok();
    assert!(
        output.stdout.contains("/app/list is a symbolic link\n"),
        "{output}"
    );
    assert!(output.stdout.ends_with("one\nmore\n1:600\n"), "{output}");
}

/// How a run may fail whose files the other user replaces meanwhile.
const SPOILED: [&str; 6] = [
    "`e` stopped: step `u/",
    // Before its first change: no step of the use can keep the former state there.
    "`e` is stopped by the rollback of `u/",
    "host `h` could not take ",
    "the rollback failed as well",
    "`e` cannot be rolled back on host `h`",
    "the journals of `e` have nothing to roll back",
];

#[test]
fn whoever_replaces_files_meanwhile_leads_root_nowhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let race = dir.path().join("race");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/foreign/race.c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-w", "-o"]).arg(&race).arg(&source);
    assert!(cc.status().expect("starts").success());
    for (how, name) in [
        ("private", "conf"),
        ("parent", "sub/conf"),
        ("final", "conf"),
        ("link", "conf"),
    ] {
        let steps = format!(
            r#"step "w" {{ write "{{app}}/{name}" "{{text}}\n" owner="1:1" mode="0666"; }}
            step "l" {{ symlink "{{app}}/{name}.link" to="{{text}}"; }}
            step "s" {{ service "web" run="echo {{text}}; exec sleep 30" log="{{app}}/{name}.log"; }}
            step "p" {{ put "{{from.root}}" from="from" to="{{app}}/{name}.copy"; }}"#
        );
        let space = app(&steps, "into-foreign=#true");
        let script = format!(
            "{SETUP}other mkdir app/sub; mkdir precious; echo root >precious/victim
            chmod 600 precious/victim; cp '{race}' race; chmod 755 race
            setpriv --reuid=1 --regid=1 --clear-groups \\
                ./race {how} \"$PWD/app\" \"$PWD/precious\" & race=$!
            trap 'kill $race' EXIT
            for i in 1 2 3 4 5 6 7 8; do
                # A run may fail: the other user can spoil what is the other user's.
                rel -q e --var text=$i >/dev/null 2>>why || :
                test $((i % 3)) != 0 || rel -q e --rollback >/dev/null 2>>why || :
                test \"$(ls -A precious)\" = victim
                test \"$(stat -c %u:%a precious/victim)\" = 0:600
                test \"$(cat precious/victim)\" = root
            done",
            race = race.display(),
        );
        let output = as_root(&space, &script);
        assert_eq!(output.code, 0, "{how}: {output}");
        let why = space.read("why");
        for error in why.lines().filter(|line| line.starts_with("error: ")) {
            let is_known = SPOILED.iter().any(|known| error.contains(known));
            assert!(is_known, "{how}: {error}\n\nall of them: {why}");
        }
    }
}

#[test]
fn a_state_directory_of_another_user_is_not_used() {
    let first = "rel -q e; rm -rf app; ";
    for (what, says) in [
        // The other user was there first.
        ("chmod 1777 .; other mkdir -p host/.rel/e/undo", "/host"),
        (
            "mkdir -m 1777 host; other mkdir host/.rel",
            "/host/.rel belongs to ",
        ),
        (
            "mkdir -m 1777 host; other ln -s ../app host/.rel",
            "/host/.rel is a symbolic link",
        ),
        (
            "mkdir -p -m 1777 host/.rel; chmod 1777 host/.rel",
            "can be changed by other users",
        ),
        (
            "mkdir -p -m 755 host/.rel; other true; mkdir -m 770 host/.rel/e",
            "host/.rel/e can be changed",
        ),
        // It became theirs.
        ("FIRST chown 1 host/.rel/e", "/host/.rel/e belongs to "),
        (
            "FIRST chown 1 host/.rel/e/undo",
            "/host/.rel/e/undo belongs to ",
        ),
        (
            "FIRST chmod 777 host/.rel/e/scopes 2>/dev/null || chmod 777 host/.rel/e/services",
            "can be changed by other users",
        ),
        (
            "FIRST mv host/.rel/e/undo u; ln -s ../../../u host/.rel/e/undo",
            "/undo is a symbolic link",
        ),
        (
            "FIRST mv host/.rel/e/journal j; ln -s ../../../j host/.rel/e/journal",
            "/journal is a symbolic link",
        ),
        ("FIRST chown 1 host", "/host can be changed by the user "),
        ("FIRST chmod 777 host", "/host can be changed by every user"),
    ] {
        let space = app(r#"step "s" { write "{host.root}/conf" "{text}\n"; }"#, "");
        let what = what.replace("FIRST ", first);
        let script = format!(
            "{SETUP}rel -q build; {what}
            conf() {{ stat -c '%i %Y' host/conf 2>/dev/null || echo none; }}
            was=$(conf)
            for words in 'e --var text=two' 'e --plan' 'status e' 'e --rollback' 'lock e --reason x' 'history e' 'log e'; do
                rel $words >out 2>&1 && rc=0 || rc=$?
                printf '%s: %s\\n' \"$rc\" \"$words\"; cat out
            done
            test \"$(conf)\" = \"$was\""
        );
        let output = as_root(&space, &script).ok();
        let answers: Vec<&str> = output.stdout.matches(says).collect();
        assert!(answers.len() >= 7, "{what}: {says}: {output}");
    }
}

#[test]
fn nothing_that_is_left_can_be_changed_by_others() {
    let steps = r#"
        step "write" { write "{host.root}/d/conf" "{text}\n"; }
        step "link" { symlink "{host.root}/l/link" to="x"; }
        step "tree" { put "{wheel}" to="{host.root}/t/tree/"; }
        step "file" { put "{file}" to="{host.root}/f/file"; }
        step "copy" { put "{from.root}" from="from" to="{host.root}/c/copy"; }
        step "run" { run "mkdir -p r; echo x >r/made"; }
        step "web" { service "web" run="echo up; exec sleep 30" log="{host.root}/log/web.log"; }
        step "scope" { scope "s" enter=":" leave=":"; }
    "#;
    let space = app(steps, "");
    let script = format!(
        "{SETUP}umask 000; rel -q e; rel -q e --var text=two; rel -q e --rollback
        test -d host/.rel/e; find host -perm /022 ! -type l; find host/.rel -maxdepth 0 -perm /077
        find host -name '.rel-*'"
    );
    let output = as_root(&space, &script).ok();
    assert_eq!(output.stdout, "", "{output}");
}

/// Returns a script that gives the other user all rights in a directory by an access list: its own,
/// or the one that what is made in it gets.
fn access_list(kind: &str, dir: &str) -> String {
    format!(
        "python3 - {kind} {dir} <<'END'
import os, struct, sys
entry = lambda tag, rights, who=0xffffffff: struct.pack('<HHI', tag, rights, who)
acl = [entry(1, 7), entry(2, 7, 1), entry(4, 5), entry(16, 7), entry(32, 5)]
os.setxattr(sys.argv[2], 'system.posix_acl_' + sys.argv[1], struct.pack('<I', 2) + b''.join(acl))
END
"
    )
}

#[test]
fn an_access_list_makes_a_directory_foreign() {
    let space = app(r#"step "s" { write "{app}/conf" "{text}\n"; }"#, "");
    let script = format!(
        "{SETUP}chown 0:0 app; {}other touch app/x; rel -q build
        rel e && echo went; test ! -e app/conf",
        access_list("access", "app")
    );
    let output = as_root(&space, &script).ok();
    assert_eq!(output.stdout, "", "{output}");
    assert!(
        output.stderr.contains("/app can be changed by the group 0"),
        "{output}"
    );
}

#[test]
fn a_default_access_list_opens_nothing() {
    let space = app(
        r#"step "s" { write "{app}/conf" "{text}\n" mode="0600"; }"#,
        "",
    );
    // What is made there would be open to the other user, who looks before each `chmod`.
    let chmod = "#!/bin/sh
for file; do :; done
echo looked >>\"$STOLEN.looks\"
setpriv --reuid=1 --regid=1 --clear-groups -- cat \"$file\" >>\"$STOLEN\" 2>/dev/null
exec /bin/chmod \"$@\"
";
    space.write("bin/chmod", chmod);
    let script = format!(
        "{SETUP}chown 0:0 app; mkdir host; chmod 755 app host bin bin/chmod; >stolen; chmod 666 stolen
        {}{}rel -q build
        export STOLEN=$PWD/stolen PATH=$PWD/bin:$PATH
        rel -q e; cat app/conf stolen; sort -u stolen.looks
        other ls host/.rel 2>/dev/null && echo open
        other touch host/.rel/x host/.rel/e/x host/.rel/e/undo/x 2>/dev/null && echo open",
        access_list("default", "app"),
        access_list("default", "host")
    );
    let output = as_root(&space, &script);
    assert_eq!(output.stdout, "one\nlooked\n", "{output}");
}

#[test]
fn what_another_host_sends_gives_no_rights() {
    let steps = r#"step "s" { put "{from.root}/data" from="from" to="{host.root}/copy"; }"#;
    let space = app(steps, "");
    let script = format!(
        "{SETUP}mkdir from/data from/data/sub; chown -R 1:1 from/data
        other sh -c 'cd from/data; cp /bin/true shell; chmod 6755 shell; echo x >open
            chmod 666 open; chmod 1777 . sub; echo x >own; chmod 600 own; ln open hard; ln -s .. link'
        rel -q e; cd host/copy; stat -c '%a %U %n' . sub shell open own | sed 's/root\\|nobody/me/'
        cmp open hard; readlink link; cd ../..
        other mkfifo from/data/pipe; rel -q e --force || echo refused"
    );
    let output = as_root(&space, &script).ok();
    let expected = "755 me .\n755 me sub\n755 me shell\n644 me open\n600 me own\n..\nrefused\n";
    assert_eq!(output.stdout, expected, "{output}");
    let why = "`./pipe` is neither file, directory nor link";
    assert!(output.stderr.contains(why), "{output}");
}

#[test]
fn a_link_hides_no_foreign_directory() {
    for action in [
        r#"put "{wheel}" to="{app}/""#,
        r#"put "{wheel}" to="{app}""#,
        r#"put "{file}" to="{app}/file""#,
        r#"put "{file}" to="{host.root}/../sticky/file""#,
        r#"write "{host.root}/../sticky/conf" "{text}\n""#,
        r#"put "{wheel}" to="{host.root}/../link/""#,
        r#"put "{wheel}" to="{host.root}/../link/new/""#,
        r#"write "{host.root}/../link/new/conf" "{text}\n""#,
        r#"symlink "{host.root}/../second/new/l" to="{text}""#,
    ] {
        let space = app(&format!("step \"s\" {{ {action}; }}"), "");
        let script = format!(
            "{SETUP}mkdir host; mkdir -m 1777 sticky; ln -s app link; ln -s \"$PWD/link/../link\" second; rel -q build
            rel e --plan; rel e && echo went; echo \"left:$(ls -A app)\""
        );
        let output = as_root(&space, &script).ok();
        assert!(
            output.stdout.contains("`u/s` is refused"),
            "{action}: {output}"
        );
        assert!(!output.stdout.contains("went"), "{action}: {output}");
        assert!(output.stdout.ends_with("left:\n"), "{action}: {output}");
        assert!(
            output.stderr.contains("nothing was changed"),
            "{action}: {output}"
        );
    }
    // Commands follow links, so that nothing allows them to write there.
    for on_use in ["", "into-foreign=#true"] {
        let space = app(
            r#"step "s" makes="{app}/x" { run "echo >{app}/x"; }"#,
            on_use,
        );
        let script = format!(
            "{SETUP}rel -q build; rel e --plan; rel e && echo went; echo \"left:$(ls -A app)\""
        );
        let output = as_root(&space, &script).ok();
        assert!(
            output.stdout.contains("`u/s` is refused"),
            "{on_use}: {output}"
        );
        assert!(
            output.stderr.contains("nothing was changed"),
            "{on_use}: {output}"
        );
        assert!(output.stdout.ends_with("left:\n"), "{on_use}: {output}");
        // What the help says works: nothing allows it.
        let help = "`into-foreign` cannot make these commands safe";
        assert!(output.stderr.contains(help), "{on_use}: {output}");
    }
}

#[test]
fn the_state_never_lies_where_another_user_can_replace_it() {
    for (root, host) in [
        ("link", ""),
        ("link", "into-foreign=#true"),
        ("app/www", ""),
        ("app/www", "into-foreign=#true"),
    ] {
        let space = app(r#"step "s" { write "{host.root}/conf" "{text}\n"; }"#, "");
        let text = space.read("Releasefile.kdl");
        let new = format!("root=\"{root}\" {host}");
        space.write("Releasefile.kdl", text.replace("root=\"host\"", &new));
        let script = format!(
            "{SETUP}mkdir app/www; chown 1:1 app/www; ln -s app/www link; rel -q build
            rel -q e && echo went; ls -A app/www"
        );
        let output = as_root(&space, &script).ok();
        assert_eq!(output.stdout, "", "{root} {host}: {output}");
        let why = "can be changed by the user ";
        assert!(output.stderr.contains(why), "{root} {host}: {output}");
    }
}

#[test]
fn the_state_of_another_account_lies_in_no_shared_directory() {
    let space = app(r#"step "s" { write "{host.root}/conf" "{text}\n"; }"#, "");
    let text = space.read("Releasefile.kdl");
    let host = format!(
        "host \"h\" ssh=\"h\" root=\"{}\"",
        space.path("shared/h").display()
    );
    space.write(
        "Releasefile.kdl",
        text.replace("host \"h\" local=#true root=\"host\"", &host),
    );
    // The account of the connection is the other user's.
    let ssh = "#!/bin/sh
for word; do :; done
exec setpriv --reuid=1 --regid=1 --clear-groups -- sh -c \"$word\"
";
    space.write("ssh", ssh);
    let script = format!(
        "{SETUP}chmod 755 ssh; mkdir -p shared/h; chown 1:1 shared/h; chown 0:2 shared
        export REL_SSH=$PWD/ssh; rel -q build
        chmod 2775 shared; rel -q e && echo went; test ! -e shared/h/.rel
        chmod 755 shared; rel -q e; cat shared/h/conf
        # The same on this machine, though not for the checkout.
        sed -i 's/ssh=\"h\"/local=#true/' Releasefile.kdl; chown -R 1:1 .; rm -rf .rel shared/h/.rel
        rel() {{ other timeout 60 \"$REL\" \"$@\"; }}
        chgrp 2 shared; chmod 2775 shared; rel -q e && echo went
        chgrp 2 .; chmod 2775 .; chmod 755 shared; rel -q e; rm shared/h/conf; rel -q e; cat shared/h/conf"
    );
    let output = as_root(&space, &script).ok();
    assert_eq!(output.stdout, "one\none\n", "{output}");
    let why = "/shared can be changed by the group 2";
    assert_eq!(output.stderr.matches(why).count(), 2, "{output}");
}

#[test]
fn logs_of_another_user_are_read_only_if_they_are_files() {
    let steps = r#"step "s" { service "web" run="echo up; exec sleep 30" log="{app}/web.log"; }"#;
    let space = app(steps, "into-foreign=#true");
    let text = space.read("Releasefile.kdl");
    let log = format!(
        "log \"{}/*.log\"\nneeds \"wheel\"",
        space.path("app").display()
    );
    space.write("Releasefile.kdl", text.replace("needs \"wheel\"", &log));
    let script = format!(
        "{SETUP}echo root only >victim; chmod 600 victim; rel -q e
        other sh -c 'cd app; mkfifo a.log; ln -s ../victim v.log; ln -s /dev/zero z.log
            echo mine >m.log; ln -s m.log n.log'
        rel log e; rel -q e --rollback"
    );
    let output = as_root(&space, &script).ok();
    assert!(output.stdout.contains("up\n"), "{output}");
    assert!(output.stdout.contains("mine\n"), "{output}");
    assert!(!output.stdout.contains("root only"), "{output}");
    let names = "a.log,n.log,v.log,z.log";
    assert!(output.stdout.contains(names), "{output}");
    assert!(output.stdout.contains("not read: "), "{output}");
}

#[test]
fn a_recipe_empties_no_directory_that_a_link_leads_to() {
    let space = app("", "");
    let text = space.read("Releasefile.kdl");
    let (head, _) = text.split_once("environment").expect("an environment");
    let root = space.path("app").display().to_string();
    space.write(
        "Releasefile.kdl",
        format!(
            "{head}environment \"e\" {{\n needs \"wheel\" \"file\"\n use \"versioned-release\" on=\"h\" \
             artifact=\"{{wheel}}\" root=\"{root}\" into-foreign=#true {{ install \"touch made\"; }}\n}}\n"
        ),
    );
    let script = format!(
        "{SETUP}rel -q e; release=$(readlink app/current); rel -q e --rollback
        mkdir -p victim/artifact; echo x >victim/precious; rm -rf \"app/$release\"
        mkdir -p app/releases; chown 1:1 app/releases
        other ln -s \"$PWD/victim\" \"app/$release\"
        rel -q e && echo went; ls -A victim"
    );
    let output = as_root(&space, &script).ok();
    assert_eq!(output.stdout, "artifact\nprecious\n", "{output}");
    let why = " is a symbolic link that another user can change";
    assert!(output.stderr.contains(why), "{output}");
}

const REUSED: &str = r#"
"$REL" -q e >/dev/null 2>&1 &
until test -s host/begun; do sleep 0.02; done
for file in host/.rel/e/detached/*/pid $(cut -f10 host/.rel/e/lease)/work; do
    if test -s "$file"; then read -r session rest < "$file"; fi
done
# All of it is gone at once.
kill -9 $(sed -n 's/^\([0-9]*\) .*/\1/p' /proc/[0-9]*/stat | grep -vx "1\|$$") 2>/dev/null
sleep 0.2
come_round $session
touch go
"$REL" -q e || exit 3
grep -q '^State:.S' /proc/$daemon/status
"#;

#[test]
fn a_daemon_with_the_number_of_a_former_session_lives() {
    for how in ["", "detach=#true"] {
        let steps = format!(
            r#"step "s" {how} {{ run "cd {{host.root}}; echo yes >begun; test -e ../go || sleep 1000"; }}"#
        );
        let space = Space::empty();
        space.write(
            "Releasefile.kdl",
            "host \"h\" local=#true root=\"host\"\nenvironment \"e\" { use \"u\" on=\"h\"; }\n",
        );
        space.write("recipes/u.kdl", format!("recipe \"u\" {{ {steps} }}\n"));
        let output = space.finish(&mut space.with_own_numbers(REUSED));
        assert_eq!(output.code, 0, "{how}: {output}");
    }
}

#[test]
fn the_environment_of_root_is_for_no_other_user() {
    for how in ["", "detach=#true"] {
        let steps = format!(
            r#"step "s" as="daemon" {how} {{ run "env; echo; id -un"; env GREETING="hello"; }}"#
        );
        let space = app(&steps, "");
        let script = format!(
            "{SETUP}mkdir host; chmod 755 host; LC_ALL=C SECRET_OF_ROOT=x rel e -v; rel log e"
        );
        let output = as_root(&space, &script).ok().to_string();
        assert!(!output.contains("SECRET_OF_ROOT"), "{how}: {output}");
        for line in ["GREETING=hello", "USER=daemon", "LC_ALL=C", "REL_RUN_ID="] {
            assert!(output.contains(line), "{how}: {line}: {output}");
        }
    }
}

#[test]
fn what_a_release_lies_in_is_open_to_readers() {
    let steps = r#"
        step "copy" { put "{from.root}" from="from" to="{host.root}/c/copy"; }
        step "tree" { put "{wheel}" to="{host.root}/t/tree/"; }
        step "write" { write "{host.root}/d/conf" "{text}\n"; }
        step "link" { symlink "{host.root}/l/link" to="../d/conf"; }
    "#;
    let space = app(steps, "");
    let text = space.read("Releasefile.kdl");
    space.write(
        "Releasefile.kdl",
        text.replace("root=\"host\"", "root=\"a/b/host\""),
    );
    let script = format!(
        "{SETUP}rel -q e; other cat a/b/host/c/copy/x a/b/host/t/tree/a a/b/host/l/link
        other ls a/b/host/.rel 2>/dev/null && echo open"
    );
    let output = as_root(&space, &script);
    assert_eq!(output.stdout, "x\n1\none\n", "{output}");
}
