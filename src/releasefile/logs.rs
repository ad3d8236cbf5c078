//! Logs of an environment that no service of `rel` writes.

use std::collections::BTreeMap;

use super::environment::Inside;
use super::hosts::Hosts;
use super::node::{Mistakes, Node, with_suggestion};
use super::scope::Late;
use crate::model::{Arg, Use};
use crate::source::Mistake;
use crate::template::{Mode, Template};

impl Inside<'_> {
    /// Reads `log "/var/log/karl/*.log" on="web"`: files that are shown besides those of services.
    pub(super) fn log(&self, node: &Node, hosts: &Hosts, found: &mut Mistakes) -> Option<Use> {
        node.only_props(&["on"], found);
        node.only_children(&[], found);
        let path = node.only_text("the path of a log on the hosts", found)?;
        let parsed = Template::parse(&path.text, Mode::Plain);
        let names = parsed.iter().flat_map(Template::names);
        let is_known = |name: &str| {
            let is_variable = self.scope.world.vars.values.contains_key(name);
            let is_built_in = ["project", "environment", "version"].contains(&name);
            self.is_known(name) || is_variable || is_built_in || name.starts_with("host.")
        };
        for name in names.filter(|name| !is_known(name)) {
            let message = format!("`{name}` is not known here");
            let known = [self.names(), vec!["host.root", "host.name", "environment"]].concat();
            let mistake = Mistake::new("unknown_name", path.place, message, "not a name");
            found.push(with_suggestion(mistake, name, &known, "there are"));
        }
        self.touch(&path.text);
        let arg = Arg {
            text: path.text,
            place: path.place,
        };
        Some(Use {
            label: String::from("log"),
            on: self.hosts_of(node, "on", hosts, found),
            args: BTreeMap::from([(String::from("path"), arg)]),
            place: path.place,
            recipe: String::new(),
            from: None,
            after: Vec::new(),
            max_age: None,
            rollout: None,
            is_gate: false,
            around: Vec::new(),
        })
    }
}
