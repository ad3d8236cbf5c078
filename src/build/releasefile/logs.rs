//! Logs of an environment that no service of `rel` writes.

use super::environment::Inside;
use super::hosts::Hosts;
use super::node::{Mistakes, Node};
use super::scope::OnHost;
use crate::build::model::Log;
use crate::core::template::Mode;

impl Inside<'_> {
    /// Reads `log "/var/log/karl/*.log" on="web"`: files that are shown besides those of services.
    pub(super) fn log(&self, node: &Node, hosts: &Hosts, found: &mut Mistakes) -> Option<Log> {
        node.only_props(&["on"], found);
        node.only_children(&[], found);
        let path = node.only_text("the path of a log on the hosts", found)?;
        Some(Log {
            path: self.bind(&path, Mode::Plain, &OnHost(self), found)?,
            on: self.hosts_of(node, "on", hosts, found),
        })
    }
}
