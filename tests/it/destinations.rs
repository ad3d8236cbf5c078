//! Which machine a kept connection leads to: the one that `ssh` would reach anew.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::hosts::Hosts;
use crate::space::Space;

/// Two machines of one private address and port, each of them reached by its own way.
const ADDRESS: &str = "10.200.0.5";

const RECIPE: &str =
    r#"recipe "u" { param "text"; step "w" { write "{host.root}/site" "{text}"; }; }"#;

/// Two machines, and a space in which `rel` uses an `ssh` with a configuration of its own.
struct Ground {
    hosts: Hosts,
    space: Space,
}

impl Ground {
    fn new() -> Self {
        let hosts = Hosts::wired(2);
        let space = Space::empty();
        space.write("recipes/u.kdl", RECIPE);
        let config = space.path("ssh_config");
        let script = format!("#!/bin/sh\nexec ssh -F {} \"$@\"\n", config.display());
        space.write("ssh", script);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(space.path("ssh"), mode).expect("sets");
        let ground = Self { hosts, space };
        ground.add_address(0);
        ground.add_address(1);
        ground.configure("");
        ground
    }

    /// Gives a machine the private address, too, where it has a network of its own.
    fn add_address(&self, number: usize) {
        if self.hosts.has_networks() {
            let mut ip = self.space.program("ip");
            ip.args(["address", "add", ADDRESS, "dev", "lo"]);
            let _ = self
                .hosts
                .inside(number, || self.space.finish(&mut ip))
                .ok();
        }
    }

    /// Writes the configuration: these lines, and how keys are found.
    fn configure(&self, lines: &str) {
        let user = self.space.shell("id -un");
        let options = self.hosts.options();
        let options = options.iter().filter(|o| !o.contains("KnownHosts"));
        let options: String = options
            .map(|option| format!("    {}\n", option.replacen('=', " ", 1)))
            .collect();
        let text = format!(
            "{}Host *\n    User {user}{options}    StrictHostKeyChecking no\n    \
             UserKnownHostsFile /dev/null\n    LogLevel ERROR\n",
            self.filled(lines)
        );
        self.space.write("ssh_config", text);
    }

    /// Puts addresses and ports of the machines into a text.
    fn filled(&self, text: &str) -> String {
        let config = self.space.path("ssh_config");
        let [eu, us] = [0, 1].map(|number| &self.hosts.all[number]);
        // Without networks of their own the machines differ by their port.
        let inner = |port: u16| match self.hosts.has_networks() {
            true => format!("{ADDRESS}:{port}"),
            false => format!("127.0.0.1:{port}"),
        };
        text.replace("[config]", &config.display().to_string())
            .replace("[eu]", &format!("{} -p {}", eu.address, eu.port))
            .replace("[us]", &format!("{} -p {}", us.address, us.port))
            .replace("[gate-eu]", &format!("{}:{}", eu.address, eu.port))
            .replace("[gate-us]", &format!("{}:{}", us.address, us.port))
            .replace("[in-eu]", &inner(eu.port))
            .replace("[in-us]", &inner(us.port))
            .replace("[host-eu]", &eu.address)
            .replace("[host-us]", &us.address)
            .replace("[port-eu]", &eu.port.to_string())
            .replace("[port-us]", &us.port.to_string())
    }

    /// Declares the hosts `eu` and `us`, each with an environment of its name.
    fn declare(&self, eu: &str, us: &str) {
        let roots = [0, 1].map(|number| self.hosts.root(&self.hosts.all[number]));
        let host = |name: &str, words: &str, root: &str| {
            let words = words.replacen("ssh=", &format!("root=\"{root}\" ssh="), 1);
            let environment =
                format!("environment \"{name}\" {{ use \"u\" on=\"{name}\" text=\"{name}\"; }}\n");
            format!("host \"{name}\" {words}\n{environment}")
        };
        let text = host("eu", eu, &roots[0]) + &host("us", us, &roots[1]);
        self.space.write("Releasefile.kdl", self.filled(&text));
    }

    fn run(&self, environment: &str) {
        let mut rel = self.space.rel(["-q", environment]);
        rel.env("REL_SSH", self.space.path("ssh"));
        let _ = self.space.finish(&mut rel).ok();
    }

    /// Returns what was written on either machine.
    fn sites(&self) -> [String; 2] {
        let of = |number: usize| self.hosts.all[number].srv("site");
        [0, 1].map(|number| fs::read_to_string(of(number)).unwrap_or_else(|_| "-".into()))
    }
}

/// How the ways are distinguished: lines of `ssh_config`, and the hosts `eu` and `us`.
const WAYS: [(&str, &str, &str, &str); 4] = [
    (
        "aliases with a command",
        "Host dbeu\n  HostName 10.200.0.5\n  ProxyCommand ssh -F [config] -W [in-eu] [eu]\n\
         Host dbus\n  HostName 10.200.0.5\n  ProxyCommand ssh -F [config] -W [in-us] [us]\n",
        r#"ssh="dbeu""#,
        r#"ssh="dbus""#,
    ),
    (
        "aliases with a jump host",
        "Host dbeu\n  HostName 10.200.0.5\n  Port [port-eu]\n  ProxyJump [gate-eu]\n\
         Host dbus\n  HostName 10.200.0.5\n  Port [port-us]\n  ProxyJump [gate-us]\n",
        r#"ssh="dbeu""#,
        r#"ssh="dbus""#,
    ),
    (
        "options",
        "",
        r#"ssh="10.200.0.5" { option "ProxyCommand=ssh -F [config] -W [in-eu] [eu]"; }"#,
        r#"ssh="10.200.0.5" { option "ProxyCommand=ssh -F [config] -W [in-us] [us]"; }"#,
    ),
    (
        "jump hosts",
        "",
        r#"ssh="10.200.0.5" port=[port-eu] jump="[gate-eu]""#,
        r#"ssh="10.200.0.5" port=[port-us] jump="[gate-us]""#,
    ),
];

#[test]
fn a_kept_connection_to_the_same_address_behind_another_way_is_not_used() {
    let ground = Ground::new();
    for (name, config, eu, us) in WAYS {
        ground.configure(config);
        ground.declare(eu, us);
        for number in [0, 1] {
            let _ = fs::remove_file(ground.hosts.all[number].srv("site"));
            let _ = fs::remove_dir_all(ground.hosts.all[number].srv(".rel"));
        }
        ground.run("eu");
        assert_eq!(ground.sites(), ["eu", "-"], "{name}");
        ground.run("us");
        assert_eq!(ground.sites(), ["eu", "us"], "{name}");
    }
}

/// Configurations of one alias, of which each leads elsewhere than the one before it.
const MOVES: [(&str, &str); 4] = [
    (
        "Host db\n  HostName 10.200.0.5\n  ProxyCommand ssh -F [config] -W [in-eu] [eu]\n",
        "eu",
    ),
    (
        "Host db\n  HostName 10.200.0.5\n  ProxyCommand ssh -F [config] -W [in-us] [us]\n",
        "us",
    ),
    (
        "Host db\n  HostName 10.200.0.5\n  Port [port-eu]\n  ProxyJump gate\n\
         Host gate\n  HostName [host-eu]\n  Port [port-eu]\n",
        "eu",
    ),
    // Only the jump host is another one.
    (
        "Host db\n  HostName 10.200.0.5\n  Port [port-us]\n  ProxyJump gate\n\
         Host gate\n  HostName [host-us]\n  Port [port-us]\n",
        "us",
    ),
];

#[test]
fn a_kept_connection_is_not_used_after_the_configuration_has_changed() {
    let ground = Ground::new();
    for (config, machine) in MOVES {
        ground.configure(config);
        ground.declare(r#"ssh="db""#, r#"ssh="db""#);
        for number in [0, 1] {
            let _ = fs::remove_file(ground.hosts.all[number].srv("site"));
            let _ = fs::remove_dir_all(ground.hosts.all[number].srv(".rel"));
        }
        ground.run("eu");
        let expected = match machine {
            "eu" => ["eu", "-"],
            _ => ["-", "eu"],
        };
        assert_eq!(ground.sites(), expected, "{config}");
    }
}

/// What a later host has on the connection that an earlier one would have opened without it.
#[test]
fn options_hold_although_a_connection_without_them_is_kept() {
    let mut ground = Ground::new();
    let to = r#"ssh="10.200.0.5" port=[port-eu] jump="[gate-eu]""#;
    let more = format!("{to} {{ option \"SetEnv=SITE=us\"; }}");
    ground.declare(to, &more);
    let says = r#"recipe "u" { param "text"; step "w" { run "printf %s \"${{SITE:-none}}\" >{host.root}/site"; }; }"#;
    ground.space.write("recipes/u.kdl", says);
    ground.hosts.configure(0, "AcceptEnv SITE");
    ground.add_address(0);
    ground.run("eu");
    assert_eq!(ground.sites()[0], "none");
    ground.run("us");
    assert_eq!(ground.sites()[0], "us");
    // The first one has its own connection still.
    ground.run("eu");
    let logins = ground.hosts.all[0]
        .log()
        .matches("Accepted publickey")
        .count();
    assert_eq!(logins, 4);
}

/// Words of a configuration after which `ssh` would not start what it is given, or would give it
/// no input.
const IN_THE_WAY: [&str; 5] = [
    "RemoteCommand tmux new -A -s main\n  RequestTTY yes",
    "SessionType none",
    "StdinNull yes",
    "ForkAfterAuthentication yes",
    "PermitLocalCommand yes\n  LocalCommand echo on our side",
];

#[test]
fn a_configuration_for_people_is_not_in_the_way() {
    let ground = Ground::new();
    for words in IN_THE_WAY {
        ground.configure(&format!(
            "Host db\n  HostName [host-eu]\n  Port [port-eu]\n  {words}\n"
        ));
        ground.declare(r#"ssh="db""#, r#"ssh="db""#);
        let _ = fs::remove_file(ground.hosts.all[0].srv("site"));
        let _ = fs::remove_dir_all(ground.hosts.all[0].srv(".rel"));
        ground.run("eu");
        assert_eq!(ground.sites()[0], "eu", "{words}");
    }
}

/// Gives a machine another id: in namespaces of their own, hosts may have that.
const ANOTHER_ID: &str = "echo 0123456789abcdef0123456789abcdef >/srv/id; touch /etc/machine-id; \
                          mount --bind /srv/id /etc/machine-id";

const ONE: &str = "environment \"e\" { use \"u\" on=\"h\" text=\"x\"; }\n";

#[test]
fn a_name_that_leads_to_another_machine_is_refused_until_it_is_accepted() {
    let hosts = Hosts::start(2);
    let space = Space::empty();
    space.write("recipes/u.kdl", RECIPE);
    let lead_to = |number: usize| {
        let node = hosts.node(&hosts.all[number], "");
        let node = node.replacen(&format!("\"{}\"", hosts.all[number].name), "\"h\"", 1);
        space.write("Releasefile.kdl", format!("{node}{ONE}"));
    };
    let is_written = |number: usize| hosts.all[number].srv("site").exists();
    // Another machine has another id.
    if hosts.is_private() {
        let _ = hosts.ssh(&space, &hosts.all[1], ANOTHER_ID).ok();
    }
    lead_to(0);
    let _ = space.run(["-q", "e"]).ok();
    assert!(is_written(0));
    // Without them it is the state on the host that says that it was another one.
    if !hosts.is_private() {
        let signed = hosts.all[0].srv(".rel/e/host");
        fs::write(signed, "h fedcba9876543210fedcba9876543210 -\n").expect("writes");
        space.remove(".rel");
        let refused = space.run(["e"]).fails(1);
        assert!(refused.stderr.contains("another machine"), "{refused}");
        return;
    }
    lead_to(1);
    let refused = space.run(["e"]).fails(1);
    let message = "host `h` is another machine than before";
    assert!(refused.stderr.contains(message), "{refused}");
    assert!(
        refused
            .stderr
            .contains("machine-id 0123456789abcdef0123456789abcdef, host key"),
        "{refused}"
    );
    let compared = "compared  the machine-id differs, the host key is the same";
    assert!(refused.stderr.contains(compared), "{refused}");
    assert!(
        refused.stderr.contains("`rel hosts --accept h`"),
        "{refused}"
    );
    assert!(!is_written(1) && !hosts.all[1].srv(".rel").exists());
    let told = space.run(["status", "e"]).ok();
    assert!(told.stdout.contains(message), "{told}");
    let told = space.run(["hosts"]).fails(1);
    assert!(told.stdout.contains(message), "{told}");
    let _ = space.run(["hosts", "--accept"]).fails(2);
    let _ = space.run(["hosts", "--accept", "h"]).ok();
    let _ = space.run(["-q", "e"]).ok();
    assert!(is_written(1));
    // And back: the first one is the other one now.
    lead_to(0);
    let _ = space.run(["e"]).fails(1);
}

#[test]
fn the_state_of_another_host_is_refused_also_by_a_new_checkout() {
    let hosts = Hosts::start(2);
    let space = Space::empty();
    space.write("recipes/u.kdl", RECIPE);
    let nodes = [0, 1].map(|number| hosts.node(&hosts.all[number], ""));
    let uses = "environment \"e\" { use \"u\" on=\"h1\" text=\"h1\"; use \"u\" as=\"v\" on=\"h2\" text=\"h2\"; }\n";
    space.write("Releasefile.kdl", nodes.concat() + uses);
    let _ = space.run(["-q", "e"]).ok();
    let site = |number: usize| fs::read_to_string(hosts.all[number].srv("site"));
    // Each name leads to the other's machine, and nothing is known here any more.
    let swapped = nodes
        .concat()
        .replace("\"h1\"", "\"h0\"")
        .replace("\"h2\"", "\"h1\"");
    space.write(
        "Releasefile.kdl",
        swapped.replace("\"h0\"", "\"h2\"") + uses,
    );
    space.remove(".rel");
    let refused = space.run(["e"]).fails(1);
    let message = "host `h1` has the state directory of host `h2`";
    assert!(refused.stderr.contains(message), "{refused}");
    assert_eq!(site(0).expect("a file"), "h1");
    // They were renamed, and that is meant.
    let _ = space.run(["hosts", "--accept", "h1", "h2"]).ok();
    let _ = space.run(["-q", "e"]).ok();
    assert_eq!(site(0).expect("a file"), "h2");
    space.remove(".rel");
    let _ = space.run(["-q", "e"]).ok();
}

/// A machine under the name `h`, and a checkout whose environment `e` releases to it.
fn one_machine() -> (Hosts, Space) {
    let hosts = Hosts::start(1);
    let space = Space::empty();
    space.write("recipes/u.kdl", RECIPE);
    let node = hosts.kdl().replacen("\"h1\"", "\"h\"", 1);
    space.write("Releasefile.kdl", format!("{node}{ONE}"));
    (hosts, space)
}

/// Calls of the guard that change what others hold, or whose state it is.
const CHANGING: [&[&str]; 4] = [
    &["lock", "e", "--reason", "x"],
    &["unlock", "e"],
    &["unlock", "e", "--break", "--reason", "x"],
    &["e"],
];

#[test]
fn a_machine_that_is_refused_is_not_changed() {
    let (hosts, space) = one_machine();
    let _ = space.run(["-q", "e"]).ok();
    // It is the state of another host, which a new checkout is to believe.
    let state = |file: &str| hosts.all[0].srv(".rel/e").join(file);
    let signed = "db fedcba9876543210fedcba9876543210 -\n";
    fs::write(state("host"), signed).expect("writes");
    fs::write(state("token"), "41\n").expect("writes");
    space.remove(".rel");
    for args in CHANGING {
        let refused = space.run(args).fails(1);
        let message = "host `h` has the state directory of host `db`";
        assert!(refused.stderr.contains(message), "{args:?} {refused}");
        let is = |file: &str| fs::read_to_string(state(file)).unwrap_or_default();
        assert_eq!(is("host"), signed, "{args:?}");
        assert_eq!(is("token"), "41\n", "{args:?}");
        assert!(!state("freeze").exists(), "{args:?}");
    }
}

#[test]
fn another_machine_gets_no_state_before_it_is_refused() {
    let (hosts, space) = one_machine();
    hosts.must_be_private();
    let _ = space.run(["-q", "e"]).ok();
    let _ = hosts.ssh(&space, &hosts.all[0], ANOTHER_ID).ok();
    let state = hosts.all[0].srv(".rel");
    fs::remove_dir_all(&state).expect("removes");
    for args in CHANGING {
        let refused = space.run(args).fails(1);
        let message = "host `h` is another machine than before";
        assert!(refused.stderr.contains(message), "{args:?} {refused}");
        assert!(!state.exists(), "{args:?}");
    }
}

/// Takes a machine its id and its public keys.
const NO_ID: &str = "mkdir -p /srv/none; : >/srv/id; mount --bind /srv/none /etc/ssh; \
                     mount --bind /srv/id /etc/machine-id";

#[test]
fn a_known_name_that_leads_to_a_machine_without_a_name_is_refused() {
    let (hosts, space) = one_machine();
    hosts.must_be_private();
    let site = hosts.all[0].srv("site");
    let _ = hosts.ssh(&space, &hosts.all[0], ANOTHER_ID).ok();
    let _ = space.run(["-q", "e"]).ok();
    let _ = hosts.ssh(&space, &hosts.all[0], NO_ID).ok();
    fs::remove_file(&site).expect("removes");
    let refused = space.run(["e"]).fails(1);
    for words in [
        "host `h` is another machine than before",
        "machine-id 0123456789abcdef0123456789abcdef, host key ",
        "machine-id none, host key none",
        "the machine-id is unknown",
        "`rel hosts --accept h`",
    ] {
        assert!(refused.stderr.contains(words), "{words}: {refused}");
    }
    // A new checkout reads it from the state of the host.
    let known = space.path(".rel");
    fs::rename(&known, space.path("former")).expect("renames");
    let refused = space.run(["e"]).fails(1);
    assert!(refused.stderr.contains("machine-id none"), "{refused}");
    let _ = fs::remove_dir_all(&known);
    fs::rename(space.path("former"), &known).expect("renames");
    assert!(!site.exists());
    let _ = space.run(["hosts", "--accept", "h"]).ok();
    let _ = space.run(["-q", "e"]).ok();
    assert!(site.exists());
    // What was accepted stays so.
    let _ = space.run(["e"]).ok();
}

#[test]
fn a_saved_plan_is_for_the_machines_that_it_was_made_of() {
    let hosts = Hosts::start(2);
    hosts.must_be_private();
    let space = Space::empty();
    space.write("recipes/u.kdl", RECIPE);
    let config = |number: usize| {
        let host = &hosts.all[number];
        format!(
            "Host db\n  HostName {}\n  Port {}\nHost *\n  User {}\n  {}\n  StrictHostKeyChecking \
             no\n  LogLevel ERROR\n",
            host.address,
            host.port,
            space.shell("id -un").trim(),
            hosts.options().join("\n  ").replace('=', " ")
        )
    };
    space.write(
        "ssh",
        format!(
            "#!/bin/sh\nexec ssh -F {} \"$@\"\n",
            space.path("config").display()
        ),
    );
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(space.path("ssh"), mode).expect("sets");
    space.write(
        "Releasefile.kdl",
        format!("host \"h\" ssh=\"db\" root=\"/srv\"\n{ONE}"),
    );
    let rel = |args: &[&str]| {
        let mut rel = space.rel(args);
        rel.env("REL_SSH", space.path("ssh"));
        space.finish(&mut rel)
    };
    let _ = hosts.ssh(&space, &hosts.all[1], ANOTHER_ID).ok();
    space.write("config", config(0));
    let _ = rel(&["-q", "e", "--plan-out", "plan.json"]).ok();
    space.write("config", config(1));
    for args in [
        &["apply", "plan.json"][..],
        &["apply", "plan.json", "--plan"],
    ] {
        let refused = rel(args).fails(1);
        for words in [
            "host `h` is another machine than when this plan was made",
            "known ",
            "found     machine-id 0123456789abcdef0123456789abcdef, host key ",
        ] {
            assert!(refused.stderr.contains(words), "{words}: {refused}");
        }
    }
    assert!(!hosts.all[1].srv("site").exists() && !hosts.all[1].srv(".rel").exists());
    space.write("config", config(0));
    let _ = rel(&["-q", "apply", "plan.json"]).ok();
    assert!(hosts.all[0].srv("site").exists());
}

#[test]
fn a_connection_of_somebody_else_is_not_used() {
    let ground = Ground::new();
    let kept = ground.space.path("kept");
    let own = |name: &str| {
        format!(
            "ssh=\"[host-{name}]\" port=[port-{name}] {{ option \"ControlMaster=auto\"; option \
             \"controlpath {}\"; option \"ControlPersist=20\"; }}",
            kept.display()
        )
    };
    ground.declare(&own("eu"), &own("us"));
    for (name, sites) in [("eu", ["eu", "-"]), ("us", ["eu", "us"])] {
        ground.run(name);
        assert_eq!(ground.sites(), sites, "{name}");
        assert!(!kept.exists(), "{name}");
    }
}
