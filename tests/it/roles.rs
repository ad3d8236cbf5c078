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
    hosts.masked(&output.to_string())
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
    let roles: Vec<String> = status
        .as_array()
        .expect("hosts")
        .iter()
        .map(|h| h["roles"].to_string())
        .collect();
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
    // What was done is rolled back where it was done, whoever is active now.
    give(&hosts, &[0]);
    let _ = space.run(["e", "--rollback", "--var", "v=2"]).ok();
    assert_eq!(have(&hosts), "back 1, front 1, back 1");
}

#[test]
fn a_role_of_nobody_or_of_too_many_stops_before_anything_is_changed() {
    let (hosts, space) = cluster("count=1");
    give(&hosts, &[]);
    let nobody = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&hosts, &nobody), @r"
    --- stderr
    error: `e` finds no host with the role `active`
      h1     does not have it (status 1)  no vip here
      h2     does not have it (status 1)  no vip here
      h3     does not have it (status 1)  no vip here
      probe  test -e '[srv]'/'vip' || { echo no vip here; exit 1; }
      help: nothing was changed
    --- exit code 1
    ");
    give(&hosts, &[0, 2]);
    let two = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&hosts, &two), @r"
    --- stderr
    error: `e` finds 2 hosts with the role `active`, of 1 host that may have it
      h1     has it
      h2     does not have it (status 1)  no vip here
      h3     has it
      probe  test -e '[srv]'/'vip' || { echo no vip here; exit 1; }
      help: nothing was changed
    --- exit code 1
    ");
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
    assert_snapshot!(lines.join("\n"), @r"
    error: the state has changed since this plan of `e` was made
      role `active`   h1 -> h2
      role `passive`  h2 h3 -> h1 h3
    ");
    assert_eq!(have(&hosts), ", , ");
    // Between the question and the first change: each probe moves it on.
    let text = space.read("Releasefile.kdl");
    let probe = "if [ -e vip ]; then rm vip; else echo >vip; exit 1; fi";
    let text = text.replace(
        "test -e {host.root}/{host.vip} || {{ echo no vip here; exit 1; }}",
        probe,
    );
    let text = text.replace("! test -e {host.root}/vip", "true");
    space.write("Releasefile.kdl", text.replace("h[1-3]", "h[1,2]"));
    let stopped = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&hosts, &stopped), @r"
    --- stderr
    error: a role of `e` has changed since this run checked it
      role `active`  h2 -> h1
      help: nothing was changed; run the same command again, which checks again
    --- exit code 1
    ");
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
    assert_snapshot!(space.run(["check"]).fails(2), @r#"
    --- stderr
    rel::build::releasefile::name_clash

      × the role `both` has the name of a group
       ╭─[Releasefile.kdl:6:10]
     6 │     role "both" on="h1" command="true"
       ·          ───┬──
       ·             ╰── the same name
       ╰────
      help: rename one of them: `on="both"` would mean both

    rel::build::releasefile::unknown_host

      × there is no host or group `h3`
       ╭─[Releasefile.kdl:7:22]
     7 │     role "active" on="h1 h2 h3" command="test {host.name} = {hots}"
       ·                      ─────┬────
       ·                           ╰── not a host
       ╰────
      help: did you mean `h1`?

    rel::build::releasefile::unknown_name

      × `{hots}` is not known here
       ╭─[Releasefile.kdl:7:61]
     7 │     role "active" on="h1 h2 h3" command="test {host.name} = {hots}"
       ·                                                             ───┬──
       ·                                                                ╰── no such name
       ╰────
      help: declare it with `var`, or write `{{` for a literal brace

    rel::build::releasefile::missing_argument

      × `role` needs an argument: `command="…"`
       ╭─[Releasefile.kdl:8:5]
     8 │     role "active" on="h1"
       ·     ──┬─
       ·       ╰── nothing follows
       ╰────
      help: a command that succeeds on the hosts that have it

    rel::build::releasefile::name_clash

      × the role `active` has the name of another role
       ╭─[Releasefile.kdl:8:10]
     8 │     role "active" on="h1"
       ·          ────┬───
       ·              ╰── the same name
       ╰────
      help: rename one of them: `on="active"` would mean both

    rel::build::releasefile::missing_argument

      × `role` needs an argument: `on="HOSTS"`
       ╭─[Releasefile.kdl:9:5]
     9 │     role "none" command="true" count=0 extra=1
       ·     ──┬─
       ·       ╰── nothing follows
       ╰────
      help: name the hosts that may have it

    rel::build::releasefile::bad_number

      × expected a number from 1 to 4294967295, found 0
       ╭─[Releasefile.kdl:9:38]
     9 │     role "none" command="true" count=0 extra=1
       ·                                      ┬
       ·                                      ╰── out of range
       ╰────

    rel::build::releasefile::unknown_property

      × `role` has no property `extra`
       ╭─[Releasefile.kdl:9:40]
     9 │     role "none" command="true" count=0 extra=1
       ·                                        ──┬──
       ·                                          ╰── not a property of it
       ╰────
      help: it takes `on`, `command`, `count`

    rel::build::releasefile::unknown_host

      × there is no host or group `aktive`
        ╭─[Releasefile.kdl:10:25]
     10 │     use "http-check" on="aktive" http="http://{host.name}/"
        ·                         ────┬───
        ·                             ╰── not a host
        ╰────
      help: did you mean `active`?
    --- exit code 2
    "#);
}
