//! Logs of an environment that no service of `rel` writes.

use super::environment_node::Inside;
use super::host_nodes::Hosts;
use super::node::{Diagnostics, Node};
use super::scope::HostNames;
use crate::build::model::LogDecl;
use crate::core::template::Mode;

impl Inside<'_> {
    /// Reads `log "/var/log/karl/*.log" on="web"`: files that are shown besides those of services.
    pub(super) fn log(
        &self,
        node: &Node,
        hosts: &Hosts,
        found: &mut Diagnostics,
    ) -> Option<LogDecl> {
        node.only_props(&["on"], found);
        node.only_children(&[], found);
        let path = node.only_text("the path of a log on the hosts", found)?;
        Some(LogDecl {
            path: self.bind(&path, Mode::Plain, &HostNames(self), found)?,
            on: self.hosts_of(node, "on", hosts, found),
        })
    }
}
