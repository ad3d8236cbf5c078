//! Sarracenia's releases on its inventory of 22 hosts, each a real sshd: dev, then stage, then
//! the operational servers one by one; and the careful way of section 7b, half by half, with
//! what stays behind, its promotion, and the rollback from the middle.

use std::fs;

use rustix::process::Signal;

use crate::hosts::{Host, Hosts};
use crate::space::{Space, wait_until};

const NAMES: [&str; 22] = [
    "bunny1-dev.cmc",
    "bunny2-dev.cmc",
    "urpd1.cmc",
    "urpd2.cmc",
    "dms-ops-host1.edm",
    "dms-ops-host2.edm",
    "dms-ops-host3.edm",
    "dms-ops-host4.edm",
    "ddi1.edm",
    "ddi2.edm",
    "ddi1.cmc",
    "ddi2.cmc",
    "pxatx1-ops",
    "pxatx2-ops",
    "px1-ops",
    "px2-ops",
    "px3-ops",
    "px4-ops",
    "px5-ops",
    "px6-ops",
    "px7-ops",
    "px8-ops",
];

/// A program that keeps itself, as `sr` does. It says what it does in a log of the host.
const SR: &str = r#"version=VERSION
is_up() { [ -e pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
stop() { if is_up; then kill "$(cat pid)"; echo stop >>log; fi; rm -f pid; }
start() {
    if [ -e hang ]; then sleep 1000; fi
    setsid sleep 100000 </dev/null >/dev/null 2>&1 &
    echo $! >pid
    echo "start $version" >>log
}
case $1 in
start) is_up || start ;;
stop) stop ;;
restart) stop; start ;;
status) is_up && [ "$(tail -n 1 log)" = "start $version" ] ;;
esac
"#;

const RELEASES: &str = r#"
group "dev" "bunny[1,2]-dev.cmc" "urpd[1,2].cmc"
group "stage" "dms-ops-host[1-4].edm" "ddi[1,2].edm" "ddi[1,2].cmc"
group "ops" "pxatx[1,2]-ops" "px[1-8]-ops"
group "left" "px[1-4]-ops"
group "right" "px[5-8]-ops"
var "sr" "sarra/current/artifact/sr"

target "package" { inputs "sr.in"; outputs "build/sr"; run "cp sr.in {out}"; }

// 6: dev, then stage, then one by one.
environment "minor" {
    needs "package"
    rollout "everywhere" on="dev stage ops" serial="4 8 1" {
        use "versioned-release" as="sarra" artifact="{package}" root="{host.root}/sarra"
        use "service" as="sr" after="sarra" start="sh sarra/current/artifact/sr restart" status="sh sarra/current/artifact/sr status" stop="sh sarra/current/artifact/sr stop"
        gate command="sh sarra/current/artifact/sr status"
    }
}

// 7b: what other servers declare must not be met with other settings.
environment "careful" {
    needs "package"
    role "active" on="pxatx[1,2]-ops" command="test -e {host.root}/vip" count=1
    role "passive" on="pxatx[1,2]-ops" command="! test -e {host.root}/vip" count=1
    use "halt" as="stop-right" on="right" release="{package.id}"
    use "versioned-release" as="new-right" on="right" artifact="{package}" root="{host.root}/sarra"
    use "halt" as="stop-passive" on="passive" release="{package.id}"
    use "halt" as="stop-left" on="left" release="{package.id}"
    use "halt" as="stop-active" on="active" release="{package.id}"
    use "versioned-release" as="new-active" on="active" artifact="{package}" root="{host.root}/sarra"
    use "queues" on="active" after="stop-right stop-left stop-active"
    use "service" as="start-right" on="right" after="queues new-right" start="sh sarra/current/artifact/sr restart" status="sh sarra/current/artifact/sr status" stop="sh sarra/current/artifact/sr stop"
    use "service" as="start-active" on="active" after="queues new-active" start="sh sarra/current/artifact/sr restart" status="sh sarra/current/artifact/sr status" stop="sh sarra/current/artifact/sr stop"
    rollout "rest" on="left passive" serial=1 hold-back="left passive" {
        use "versioned-release" as="new-rest" artifact="{package}" root="{host.root}/sarra"
        use "service" as="start-rest" after="new-rest" start="sh sarra/current/artifact/sr restart" status="sh sarra/current/artifact/sr status" stop="sh sarra/current/artifact/sr stop"
        gate command="sh sarra/current/artifact/sr status"
    }
}
"#;

fn fleet() -> (Hosts, Space) {
    let mut hosts = Hosts::start(NAMES.len());
    for (host, name) in hosts.all.iter_mut().zip(NAMES) {
        host.name = String::from(name);
    }
    let space = Space::new(&format!(
        "project \"sarracenia\"\n{}{RELEASES}",
        hosts.kdl()
    ));
    space.write(
        "recipes/halt.kdl",
        r#"recipe "halt" {
    param "release"
    step "stop" per="{release}" {
        run "sh sarra/current/artifact/sr stop"
        undo "sh sarra/current/artifact/sr start"
    }
}"#,
    );
    space.write(
        "recipes/queues.kdl",
        r#"recipe "queues" { step "delete" destructive="the queues of {host.name}" { run "echo deleted >> queues" } }"#,
    );
    (hosts, space)
}

fn version(space: &Space, version: u32) {
    space.write("sr.in", SR.replace("VERSION", &version.to_string()));
}

/// Returns the last thing that `sr` did on each host whose name has `part`.
fn said(hosts: &Hosts, part: &str) -> Vec<String> {
    let last = |host: &Host| {
        let log = fs::read_to_string(host.srv("log")).unwrap_or_default();
        log.lines().last().unwrap_or("nothing").to_owned()
    };
    let named = hosts.all.iter().filter(|host| host.name.contains(part));
    named.map(last).collect()
}

fn all(said: &[String], expected: &str) -> bool {
    said.iter().all(|s| s == expected)
}

#[test]
fn dev_then_stage_then_the_operational_servers_one_by_one() {
    let (hosts, space) = fleet();
    version(&space, 1);
    let first = space.run(["minor"]).ok();
    let waves: Vec<&str> = first
        .stderr
        .lines()
        .filter_map(|l| l.trim_start().strip_prefix("wave "))
        .map(|l| l.split("`: ").last().unwrap_or_default())
        .collect();
    assert_eq!(waves.len(), 12, "{first}");
    assert_eq!(
        waves[0],
        "bunny1-dev.cmc bunny2-dev.cmc urpd1.cmc urpd2.cmc"
    );
    assert_eq!(waves[1].split(' ').count(), 8);
    assert_eq!(waves[2..], NAMES[12..]);
    assert!(all(&said(&hosts, ""), "start 1"));
    let again = space.run(["minor"]).ok();
    assert!(
        again.stderr.contains("nothing to do")
            && again.stderr.contains("on 22 hosts, 22 round trips"),
        "{again}"
    );
}

#[test]
fn half_by_half_with_what_stays_behind_and_the_way_back() {
    let (hosts, space) = fleet();
    version(&space, 1);
    let _ = space.run(["minor"]).ok();
    version(&space, 2);
    // Nobody knows which of the two has the address before they are asked.
    let nobody = space.run(["careful", "--confirm", "careful"]).fails(1);
    assert!(
        nobody
            .stderr
            .contains("finds no host with the role `active`"),
        "{nobody}"
    );
    fs::write(hosts.all[12].srv("vip"), "").expect("writes");
    let careful = space.run(["careful", "--confirm", "careful"]).ok();
    assert!(careful.stderr.contains("held back"), "{careful}");
    let expected = [
        "start 2", "stop", "stop", "stop", "stop", "stop", "start 2", "start 2", "start 2",
        "start 2",
    ];
    assert_eq!(said(&hosts, "px"), expected);
    assert!(all(&said(&hosts, "cmc"), "start 1"));
    let active = &hosts.all[12];
    assert_eq!(
        fs::read_to_string(active.srv("queues")).expect("reads"),
        "deleted\n"
    );
    // The half that was left on purpose follows.
    let _ = space.run(["promote", "careful"]).ok();
    assert!(
        all(&said(&hosts, "px"), "start 2"),
        "{:?}",
        said(&hosts, "px")
    );
    // Another release, and in its middle the end of `rel` and of the will to go on.
    version(&space, 3);
    let stuck = hosts
        .all
        .iter()
        .find(|h| h.name == "px7-ops")
        .expect("is there");
    fs::write(stuck.srv("hang"), "").expect("writes");
    let job = space.begin(["careful", "--confirm", "careful"]);
    wait_until("the right half starts", || {
        all(&said(&hosts, "px5"), "start 3").then_some(())
    });
    job.signal(Signal::KILL);
    let _ = job.finish();
    fs::remove_file(stuck.srv("hang")).expect("removes");
    let back = space.run(["careful", "--rollback"]).ok();
    assert!(back.stderr.contains("rolled back"), "{back}");
    assert!(
        all(&said(&hosts, "px"), "start 2"),
        "{:?}\n{back}",
        said(&hosts, "px")
    );
    // The other one has taken over: it is the one that moves with the right half.
    fs::rename(hosts.all[12].srv("vip"), hosts.all[13].srv("vip")).expect("moves");
    let plan = space.run(["careful", "--plan"]).ok();
    let is_active = "pxatx2-ops  has the role `active`";
    assert!(plan.stdout.contains(is_active), "{plan}");
    let _ = space.run(["careful", "--confirm", "careful"]).ok();
    let said = said(&hosts, "pxatx");
    assert_eq!(said, ["stop", "start 3"]);
}
