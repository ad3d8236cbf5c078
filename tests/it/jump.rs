//! Hosts behind a host, and a key that is only lent: both as the person's own configuration of
//! ssh says, and neither when it does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use crate::hosts::Hosts;
use crate::space::{Output, PATH, Space, wait_until};

/// A gate, a host `target` that the configuration of ssh knows, and a space in which `rel`
/// uses that configuration.
struct Ground {
    space: Space,
    hosts: Hosts,
    agent: Option<Agent>,
}

impl Ground {
    /// Returns a ground whose configuration says these lines of `target`.
    fn new(lines: &str, steps: &str) -> Self {
        let hosts = Hosts::start(2);
        let ground = Self {
            space: Space::empty(),
            hosts,
            agent: None,
        };
        ground.configure(lines);
        let (space, hosts) = (&ground.space, &ground.hosts);
        let root = hosts.root(&hosts.all[1]);
        space.write(
            "Releasefile.kdl",
            format!("host \"far\" ssh=\"target\" root=\"{root}\"\nenvironment \"e\" {{ use \"u\" on=\"far\"; }}\n"),
        );
        space.write("recipes/u.kdl", format!("recipe \"u\" {{\n{steps}\n}}\n"));
        // What a person has in ~/.ssh/config: ssh looks there in the home of the user's entry.
        let config = space.path("ssh_config");
        let script = format!("#!/bin/sh\nexec ssh -F {} \"$@\"\n", config.display());
        space.write("ssh", script);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(space.path("ssh"), mode).expect("sets");
        ground
    }

    fn configure(&self, lines: &str) {
        let [gate, target] = [0, 1].map(|i| self.hosts.all[i].port);
        let all: String = self
            .hosts
            .options()
            .iter()
            .map(|option| format!("    {}\n", option.replacen('=', " ", 1)))
            .collect();
        let user = self.space.shell("id -un");
        self.space.write(
            "ssh_config",
            format!(
                "Host gate\n    Port {gate}\nHost target\n    Port {target}\n{lines}\n\
                 Host *\n    HostName 127.0.0.1\n    User {user}{all}"
            ),
        );
    }

    fn rel(&self, args: &[&str]) -> Command {
        let mut rel = self.space.rel(args);
        rel.env("REL_SSH", self.space.path("ssh"));
        if let Some(agent) = &self.agent {
            rel.env("SSH_AUTH_SOCK", &agent.socket);
        }
        rel
    }

    fn run(&self, args: &[&str]) -> Output {
        self.space.finish(&mut self.rel(args))
    }

    /// Returns how many logins the gate has let in.
    fn through_the_gate(&self) -> usize {
        self.hosts.all[0]
            .log()
            .matches("Accepted publickey")
            .count()
    }

    fn far(&self, path: &str) -> String {
        fs::read_to_string(self.hosts.all[1].srv(path)).unwrap_or_default()
    }
}

/// A real agent that has the key.
struct Agent {
    process: Child,
    socket: std::path::PathBuf,
}

impl Agent {
    fn start(space: &Space, hosts: &Hosts) -> Self {
        let socket = space.base().join("agent");
        let process = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .env("PATH", &*PATH)
            .stdout(Stdio::null())
            .spawn()
            .expect("starts an agent");
        let agent = Self { process, socket };
        wait_until("the agent", || agent.socket.exists().then_some(()));
        let options = hosts.options();
        let key = options.iter().find_map(|o| o.strip_prefix("IdentityFile="));
        let mut add = space.program("ssh-add");
        add.arg("-q")
            .arg(key.expect("a key"))
            .env("SSH_AUTH_SOCK", &agent.socket);
        let _ = space.finish(&mut add).ok();
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_host_is_reached_over_another_where_the_configuration_says_so() {
    let mut ground = Ground::new(
        "    ProxyJump gate",
        "step \"w\" { write \"{host.root}/file\" \"x\"; }",
    );
    let _ = ground.run(&["e"]).ok();
    assert_eq!(ground.far("file"), "x");
    assert_eq!(ground.through_the_gate(), 1);
    // Kept connections go along: nobody logs in anew.
    let _ = ground.run(&["e"]).ok();
    assert_eq!(ground.through_the_gate(), 1);
    ground.hosts.all[0].stop();
    // The kept connection has ended with the gate, and its socket is gone.
    wait_until("the end of the kept connection", || {
        let sockets = fs::read_dir(ground.space.base().join("run/rel")).expect("lists");
        (sockets.count() == 0).then_some(())
    });
    let lost = ground.run(&["e"]).fails(1);
    assert!(lost.stderr.contains("cannot reach host `far`"), "{lost}");
    ground.hosts.reboot(0);
    // Without a word in the configuration it is reached as it is.
    ground.configure("");
    let _ = ground.run(&["e"]).ok();
    assert_eq!(ground.through_the_gate(), 0);
}

const WAITS: &str = r#"
    step "first" { run "echo first >>log" }
    step "waits" { run "echo waits >>log; while [ ! -e go ]; do sleep 0.05; done" }
    step "last" { run "echo last >>log" }
"#;

#[test]
fn a_gate_that_goes_in_the_middle_is_a_line_that_was_cut() {
    let mut ground = Ground::new("    ProxyJump gate", WAITS);
    let mut rel = ground.rel(&["e"]);
    let job = ground.space.start(&mut rel);
    wait_until("the step", || {
        ground.far("log").contains("waits").then_some(())
    });
    let Hosts { all, .. } = &mut ground.hosts;
    all[0].stop();
    let cut = job.finish().fails(1);
    assert!(
        cut.stderr.contains("the connection to host `far` ended"),
        "{cut}"
    );
    wait_until("the word of the guard", || {
        let journal = ground.far(".rel/e/journal");
        journal.contains("\tinterrupted\t").then_some(())
    });
    fs::write(ground.hosts.all[1].srv("go"), "").expect("writes");
    ground.hosts.reboot(0);
    let _ = ground.run(&["e"]).ok();
    // No finished step ran twice.
    assert_eq!(ground.far("log"), "first\nwaits\nwaits\nlast\n");
}

const ASKS: &str = r#"
    step "ask" { run "echo \"${{SSH_AUTH_SOCK:+lent}}\" >agent; ssh-add -l >>agent 2>&1 || true" }
"#;

#[test]
fn a_step_can_use_the_agent_of_a_person_who_lends_it() {
    let lends = "    ProxyJump gate\n    ForwardAgent yes";
    for (lines, is_lent) in [(lends, true), ("    ProxyJump gate", false)] {
        let mut ground = Ground::new(lines, ASKS);
        ground.agent = Some(Agent::start(&ground.space, &ground.hosts));
        let _ = ground.run(&["e"]).ok();
        let said = ground.far("agent");
        assert_eq!(said.starts_with("lent\n"), is_lent, "{said}");
        assert_eq!(said.contains("ED25519"), is_lent, "{said}");
    }
}
