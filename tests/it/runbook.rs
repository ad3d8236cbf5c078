//! The procedure of an environment in words, as somebody would paste it into a wiki.

use insta::assert_snapshot;
use regex::Regex;

use crate::hosts::Hosts;
use crate::space::Space;

const ENVIRONMENT: &str = r#"
secret "db-password" env="DB_PASSWORD"
target "package" { desc "The page, packed"; inputs "in.txt"; outputs "build/page"; run "cp in.txt {out}"; }
environment "staging" {
    desc "Where a branch is looked at"
    param "branch" default="trunk"
    needs "package"
    use "copy" as="data" on="h1" from="h2" max-age="24h" password="db-password"
    rollout "careful" on="h1 h2" serial=1 soak="1ms" hold-back="h2" {
        use "page" after="data" artifact="{package}"
        gate command="test -e page"
    }
}
"#;

const COPY: &str = r##"recipe "copy" {
    desc "Copies the data"
    param "password" type="secret"
    guard "idle" "true"
    step "conf" { write "{host.root}/db.conf" "password={password}\n" }
    step "closed" { scope "{use}" enter="touch {host.root}/closed" leave="rm -f {host.root}/closed" }
    step "dump" host="from" { run "echo {from.name} > {from.root}/dump" }
    step "copy" detach=#true {
        run "echo `date`; cp {host.root}/db.conf {host.root}/copied"
        verify "test -e {host.root}/copied"
        undo "rm {host.root}/copied"
    }
}
"##;

const PAGE: &str = r#"recipe "page" {
    param "artifact" type="artifact"
    step "upload" { put "{artifact}" to="{host.root}/page" }
    step "link" { symlink "{host.root}/current" to="page" }
}
"#;

fn checkout(hosts: &str) -> Space {
    let space = Space::new(&format!("{hosts}{ENVIRONMENT}"));
    space.write("in.txt", "in\n");
    space.write("recipes/copy.kdl", COPY);
    space.write("recipes/page.kdl", PAGE);
    space
}

#[test]
fn a_runbook_is_written_from_the_releasefile() {
    let hosts = r#"
host "h1" ssh="karl@h1.example.org" port=2222 jump="gate.example.org" root="/srv/karl"
host "h2" ssh="karl@h2.example.org" root="/srv/karl"
"#;
    // Nobody is asked: neither these hosts nor for the secret.
    assert_snapshot!(checkout(hosts).run(["runbook", "staging", "--offline"]).ok(), @r#"
    # Runbook: work, staging trunk

    Where a branch is looked at.

    Written by `rel runbook staging trunk` from the Releasefile: change that, not this page.

    No host was asked: former runs are unknown.

    ## Before

    - `package` is built and up to date: The page, packed.
    - `h1` can be reached: `ssh -p 2222 -J gate.example.org karl@h1.example.org`.
    - `h2` can be reached: `ssh karl@h2.example.org`.
    - The secret `db-password` can be read, for `data`.
    - The guard `idle` of `data` lets it through on `h1`; `--override idle --reason "…"` overrides it.
    - `rel staging trunk --plan` shows what would run, and changes nothing.

    ## Procedure

    `rel staging trunk` does all of this, and skips steps that are up to date.

    ### 1. Use `data`, on `h1`

    Recipe `copy`: Copies the data. It takes from `h2`. It is done again after 1day.

    1. **conf**: `write /srv/karl/db.conf`
    2. **closed**: `until the run ends: data`
    3. **dump**: `echo 'h2' > '/srv/karl'/dump`, on the host that it takes from
    4. **copy**: `` echo `date`; cp '/srv/karl'/db.conf '/srv/karl'/copied ``, verified afterwards, continues when the connection ends

    ### Rollout `careful`

    In 1 wave, one after the other; the next one begins when the gates of the one before hold:

    1. `h1`

    A wave that changed runs for 1ms before its gates are asked.

    Held back: `h2`. `rel promote staging trunk` lets them follow.

    ### 2. Use `page`, on the hosts of the wave

    Recipe `page`. It is done again when `data` changed something.

    1. **upload**: `put … to /srv/karl/page`
    2. **link**: `/srv/karl/current -> page`

    ### 3. Gate `gate`, on the hosts of the wave

    Recipe `wait-for`: Waits until a command succeeds on the host, or a port takes connections.

    1. **command**: `wait for: test -e page`

    ## When something goes wrong

    - If a step fails, all changes of the run are rolled back, in reverse order. The last line of the run reports whether everything was restored.
    - An interrupted run (Ctrl-C, a lost connection, a crash) rolls nothing back: `rel staging trunk` continues where it stopped, and repeats nothing.
    - Scopes that were entered are left, however the run ends; `--plan` shows a scope that could not be left as pending.
    - `rel attach staging trunk` follows detached steps, `rel attach staging trunk --stop` ends them.
    - `rel log staging trunk` shows the logs on all hosts, `rel status staging trunk` the live release, `rel history staging trunk` all runs and their users.

    ## Rollback

    `rel staging trunk --rollback` undoes the last release, by the journals of the hosts:

    - `page/link`: the former target
    - `data/copy`: rm '/srv/karl'/copied
    - `data/closed`: the scope is left
    - `data/conf`: the former file
    - Not rolled back: `page/upload`, `data/dump`.
    "#);
}

/// Roles, windows, a mode around a change, and something that is lost.
const CAREFUL: &str = r#"
host "h1" local=#true root="h1"
host "h2" local=#true root="h2"
environment "ops" {
    role "active" on="h1 h2" command="test -e {host.root}/vip" count=1
    window "Mon,Tue 09:00-16:00" "Sun 22:00-02:00" tz="UTC"
    use "closed" on="active" wraps="queues"
    use "queues" on="active"
    rollout "all" on="h1 h2" {
        window "01:00-05:00" tz="America/Montreal"
        use "wait-for" command="test -e up"
    }
}
"#;

#[test]
fn a_runbook_says_who_when_and_what_is_lost() {
    let space = Space::new(CAREFUL);
    space.write(
        "recipes/closed.kdl",
        r#"recipe "closed" {
    step "line" { forward "{use}" listen="127.0.0.1:8081" to="127.0.0.1:9" }
    step "front" { run "rel_undo 'reload'; reload" }
}
"#,
    );
    space.write(
        "recipes/queues.kdl",
        r#"recipe "queues" {
    step "delete" destructive="the queues of {host.name}" { run "rm {host.root}/queues" }
}
"#,
    );
    assert_snapshot!(space.run(["runbook", "ops", "--offline"]).ok(), @r#"
    # Runbook: work, ops

    Written by `rel runbook ops` from the Releasefile: change that, not this page.

    No host was asked: former runs are unknown.

    ## Before

    - `h1` can be reached: it is this machine.
    - `h2` can be reached: it is this machine.
    - One of `h1`, `h2` has the role `active`: where `test -e '[work]/h1'/vip` succeeds.
    - The time is within Mon,Tue 09:00-16:00; Sun 22:00-02:00 (UTC); `--override window --reason "…"` allows another time.
    - Data that is destroyed (below) may be lost: confirm it when asked, or with `--confirm`.
    - `rel ops --plan` shows what would run, and changes nothing.

    ## Procedure

    `rel ops` does all of this, and skips steps that are up to date.

    ### 1. Use `closed`, on `h1`, `h2`

    Recipe `closed`. It is done when `queues` will change something, and only then.

    1. **line**: `until the run ends: 127.0.0.1:8081 leads to 127.0.0.1:9 here`, from here
    2. **front**: `rel_undo 'reload'; reload`

    ### 2. Use `queues`, on `h1`, `h2`

    Recipe `queues`.

    1. **delete**: `rm '[work]/h1'/queues`, **destroys** the queues of h1

    ### Rollout `all`

    In 1 wave, one after the other:

    1. `h1`, `h2`

    A wave begins only within 01:00-05:00 (America/Montreal).

    ### 3. Use `wait-for`, on the hosts of the wave

    Recipe `wait-for`: Waits until a command succeeds on the host, or a port takes connections.

    1. **command**: `wait for: test -e up`

    ## When something goes wrong

    - If a step fails, all changes of the run are rolled back, in reverse order. The last line of the run reports whether everything was restored.
    - An interrupted run (Ctrl-C, a lost connection, a crash) rolls nothing back: `rel ops` continues where it stopped, and repeats nothing.
    - Scopes that were entered are left, however the run ends; `--plan` shows a scope that could not be left as pending.
    - `rel log ops` shows the logs on all hosts, `rel status ops` the live release, `rel history ops` all runs and their users.

    ## Rollback

    `rel ops --rollback` undoes the last release, by the journals of the hosts:

    - `closed/front`: as recorded
    - `closed/line`: the port is closed
    - Not rolled back: `queues/delete`.
    "#);
}

#[test]
fn a_runbook_tells_of_the_last_run() {
    let hosts = Hosts::start(2);
    let space = checkout(&hosts.kdl());
    let before = space.run(["runbook", "staging"]).ok().stdout;
    assert!(
        before.contains("No host has a record of a finished run"),
        "{before}"
    );
    let mut command = space.rel(["staging"]);
    let _ = space.finish(command.env("DB_PASSWORD", "sesame")).ok();
    let after = space.run(["runbook", "staging"]).ok().stdout;
    let said = Regex::new(r"The last run was on \d{4}-\d\d-\d\d \d\d:\d\d UTC by \S+@\S+, took ");
    assert!(said.expect("a pattern").is_match(&after), "{after}");
    let step = Regex::new(r"\*\*copy\*\*: .* \((less than a second|\[TIME\])\)\n");
    assert!(step.expect("a pattern").is_match(&after), "{after}");
    assert!(!after.contains("sesame"), "{after}");
}
