//! Roles: hosts that a probe finds, on real hosts. Which of several is the active one changes
//! while nobody looks, and must not surprise a run.

use std::fs;

use insta::assert_snapshot;

use crate::hosts::Hosts;
use crate::space::{Output, Space};

/// Three hosts; whoever has the file `vip` is active. `count` is a property of that role.
fn cluster(count: &str) -> (Hosts, Space) {
    let hosts = Hosts::start(3);
    let nodes: String = hosts
        .all
        .iter()
        .map(|host| hosts.node(host, "    var \"vip\" \"vip\"\n"))
        .collect();
    let space = Space::new(&format!(
        r#"{nodes}
var "v" "1"
environment "e" {{
    role "active" on="h[1-3]" command="test -e {{host.root}}/{{host.vip}} || {{{{ echo no vip here; exit 1; }}}}" {count}
    role "passive" on="h[1-3]" command="! test -e {{host.root}}/vip"
    use "file" as="front" on="active" text="front {{v}}"
    rollout "rest" on="passive" serial=1 {{
        use "file" as="back" text="back {{v}}"
    }}
}}
"#
    ));
    space.write(
        "recipes/file.kdl",
        "recipe \"file\" {\n param \"text\"\n step \"w\" { write \"{host.root}/{use}\" \"{text}\\n\"; }\n}\n",
    );
    (hosts, space)
}

fn give(hosts: &Hosts, to: &[usize]) {
    for (number, host) in hosts.all.iter().enumerate() {
        match to.contains(&number) {
            true => fs::write(host.srv("vip"), "").expect("writes"),
            false => drop(fs::remove_file(host.srv("vip"))),
        }
    }
}

/// Returns what each host has.
fn have(hosts: &Hosts) -> String {
    let read = |host: &crate::hosts::Host, name| {
        let text = fs::read_to_string(host.srv(name)).unwrap_or_default();
        text.trim().to_owned()
    };
    let all = hosts.all.iter();
    let all = all.map(|h| format!("{}{}", read(h, "front"), read(h, "back")));
    all.collect::<Vec<_>>().join(", ")
}

fn shown(hosts: &Hosts, output: &Output) -> String {
    let text = output.to_string();
    let all = hosts.all.iter();
    all.fold(text, |text, host| text.replace(&hosts.root(host), "[srv]"))
}

#[test]
fn uses_go_where_a_probe_finds_the_role() {
    let (hosts, space) = cluster("");
    give(&hosts, &[1]);
    let plan = space.run(["e", "--plan"]).ok();
    let named: Vec<&str> = plan.stdout.lines().filter(|l| l.contains("role")).collect();
    assert_snapshot!(named.join("\n"), @r"
    h2  has the role `active`
    h1  has the role `passive`
    h3  has the role `passive`
    ");
    let _ = space.run(["e"]).ok();
    assert_eq!(have(&hosts), "back 1, front 1, back 1");
    let again = space.run(["e"]).ok();
    // One round trip more than without roles, and nobody is asked a third time.
    assert!(again.stderr.contains("nothing to do"), "{again}");
    assert!(again.stderr.contains("6 round trips"), "{again}");
    let status = space.ask(["status", "e"]);
    let roles: Vec<String> = status.as_array().expect("hosts").iter().map(|h| h["roles"].to_string()).collect();
    assert_eq!(roles.join(" "), r#"["passive"] ["active"] ["passive"]"#);
    let told = space.run(["status", "e"]).ok();
    assert!(told.stdout.contains("h2  active, since"), "{told}");
    let inventory = space.ask(["hosts", "active"]);
    assert_eq!(inventory.as_array().expect("hosts").len(), 1);
    assert_eq!(inventory[0]["host"], "h2");
    assert_eq!(inventory[0]["roles"].to_string(), r#"["active (e)"]"#);
    // It moved, and the uses move along.
    give(&hosts, &[2]);
    let _ = space.run(["e", "--var", "v=2"]).ok();
    assert_eq!(have(&hosts), "back 2, front 1back 2, front 2back 1");
    // What was done is taken back where it was done, whoever is active now.
    give(&hosts, &[0]);
    let _ = space.run(["e", "--rollback", "--var", "v=2"]).ok();
    assert_eq!(have(&hosts), "back 1, front 1, back 1");
}

#[test]
fn a_role_of_nobody_or_of_too_many_stops_before_anything_is_changed() {
    let (hosts, space) = cluster("count=1");
    give(&hosts, &[]);
    let nobody = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&hosts, &nobody), @"");
    give(&hosts, &[0, 2]);
    let two = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&hosts, &two), @"");
    let plan = space.run(["e", "--plan"]).fails(1);
    assert!(plan.stderr.contains("finds 2 hosts"), "{plan}");
    assert!(hosts.all.iter().all(|host| !host.srv(".rel").exists()));
    // A question is answered all the same.
    let _ = space.run(["status", "e"]).ok();
}

#[test]
fn a_role_that_moves_between_the_plan_and_the_run_stops_it() {
    let (hosts, space) = cluster("");
    give(&hosts, &[0]);
    let _ = space.run(["e", "--plan-out", "plan.json"]).ok();
    give(&hosts, &[1]);
    let refused = space.run(["apply", "plan.json"]).fails(1);
    let lines: Vec<&str> = refused.stderr.lines().take(3).collect();
    assert_snapshot!(lines.join("\n"), @"");
    assert_eq!(have(&hosts), ", , ");
    // Between the question and the first change: each probe moves it on.
    let text = space.read("Releasefile.kdl");
    let probe = "if [ -e vip ]; then rm vip; else echo >vip; exit 1; fi";
    let text = text.replace("test -e {host.root}/{host.vip} || {{ echo no vip here; exit 1; }}", probe);
    let text = text.replace("! test -e {host.root}/vip", "true");
    space.write("Releasefile.kdl", text.replace("h[1-3]", "h[1,2]"));
    let stopped = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&hosts, &stopped), @"");
    assert_eq!(have(&hosts), ", , ");
}

#[test]
fn mistakes_about_roles_are_found_before_any_host_is_asked() {
    let space = Space::new(
        r#"
host "h1" local=#true
host "h2" local=#true
group "both" "h1" "h2"
environment "e" {
    role "both" on="h1" command="true"
    role "active" on="h1 h2 h3" command="test {host.name} = {hots}"
    role "active" on="h1"
    role "none" command="true" count=0 extra=1
    use "http-check" on="aktive" http="http://{host.name}/"
    use "db-copy" on="h1" from="active" snapshot="true" into="x"
}
"#,
    );
    assert_snapshot!(space.run(["check"]).fails(2), @"");
}
