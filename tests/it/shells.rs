//! Login shells of hosts: which one a user has does not matter.

use crate::hosts::{Hosts, free_port};
use crate::space::Space;

/// A responder, and a step that asks it.
const RECIPE: &str = r#"
recipe "u" {
    step "away" { responder "away" listen="127.0.0.1:[port]" status=503 { body "back soon\n"; }; }
    step "ask" { run "[python] >{host.root}/said"; }
}
"#;

const ASK: &str = "python3 -c 'import http.client as h; c = h.HTTPConnection(\\\"127.0.0.1\\\", [port], timeout=9); \
                   c.request(\\\"GET\\\", \\\"/\\\"); r = c.getresponse(); print(r.status, r.read().decode())'";

#[test]
fn programs_and_ports_are_the_same_for_every_login_shell() {
    let space = Space::empty();
    let port = free_port().to_string();
    let recipe = RECIPE.replace("[python]", ASK).replace("[port]", &port);
    space.write("recipes/u.kdl", recipe);
    let uses = "environment \"e\" { use \"u\" on=\"h1\"; }\n";
    for shell in ["bash", "dash", "zsh", "tcsh", "fish"] {
        let mut hosts = Hosts::start(1);
        hosts.configure(
            0,
            &format!("ForceCommand exec {shell} -c \"$SSH_ORIGINAL_COMMAND\""),
        );
        space.write("Releasefile.kdl", hosts.kdl() + uses);
        let _ = std::fs::remove_dir_all(space.path(".rel"));
        let output = space.run(["e"]);
        assert_eq!(output.code, 0, "{shell}: {output}");
        let said = std::fs::read_to_string(hosts.all[0].srv("said"));
        assert_eq!(said.expect("an answer"), "503 back soon\n\n", "{shell}");
    }
}
