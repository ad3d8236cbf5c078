//! Roles: `role "active" on="px[1-4]-ops" command="…"`, names for the hosts on which a probe
//! succeeds. Elsewhere in the environment they are used like groups.

use std::borrow::Cow;

use super::environment_node::Inside;
use super::host_nodes::Hosts;
use super::node::{Diagnostics, Node, SpannedText};
use super::scope::{HostNames, bad_name};
use crate::build::model::Role;
use crate::core::diagnostics::Diagnostic;
use crate::core::template::Mode;

impl Inside<'_> {
    /// Returns the roles among `nodes`, and all hosts with them as groups: of the hosts that
    /// may have them.
    pub(super) fn roles<'h>(
        &self,
        nodes: &[Node],
        hosts: &'h Hosts,
        found: &mut Diagnostics,
    ) -> (Vec<Role>, Cow<'h, Hosts>) {
        let mut roles: Vec<Role> = Vec::new();
        let mut known = Cow::Borrowed(hosts);
        for node in nodes.iter().filter(|n| n.is("role")) {
            node.only_props(&["on", "command", "count"], found);
            node.only_children(&[], found);
            let Some(name) = node.only_text("the name of the role", found) else {
                continue;
            };
            found.extend(bad_name("a role", &name));
            self.report_taken(&name, &roles, hosts, found);
            // Of hosts and groups, not of other roles: all are asked at once.
            let on = self.hosts_of(node, "on", hosts, found);
            if on.is_empty() {
                let mistake = node.missing("`on=\"HOSTS\"`");
                found.push(mistake.help("name the hosts that may have it"));
            }
            let command = node.text_prop("command", found);
            if command.is_none() {
                let mistake = node.missing("`command=\"…\"`");
                found.push(mistake.help("a command that succeeds on the hosts that have it"));
            }
            let command =
                command.and_then(|text| self.bind(&text, Mode::Shell, &HostNames(self), found));
            let members = self.members(&on, hosts);
            let known = known.to_mut();
            known.groups.insert(name.text.clone(), members);
            known.roles.push(name.text.clone());
            roles.push(Role {
                on,
                command: command.unwrap_or_default(),
                count: node.prop("count").and_then(|count| count.number(1, found)),
                place: name.place,
                name: name.text,
            });
        }
        (roles, known)
    }

    fn report_taken(
        &self,
        name: &SpannedText,
        roles: &[Role],
        hosts: &Hosts,
        found: &mut Diagnostics,
    ) {
        let is_known = |names: bool, what: &'static str| names.then_some(what);
        let taken = is_known(hosts.hosts.contains_key(&name.text), "a host")
            .or_else(|| is_known(hosts.groups.contains_key(&name.text), "a group"))
            .or_else(|| is_known(roles.iter().any(|r| r.name == name.text), "another role"));
        if let Some(what) = taken {
            let message = format!("the role `{}` has the name of {what}", name.text);
            found.push(
                Diagnostic::new("name_clash", name.place, message, "the same name").help(format!(
                    "rename one of them: `on=\"{}\"` would mean both",
                    name.text
                )),
            );
        }
    }
}
