//! The hosts of these tests: each has a view of its own, and ends with all that runs on it.

use std::fs;
use std::net::TcpStream;

use crate::hosts::Hosts;
use crate::space::{Space, wait_until};

#[test]
fn hosts_have_views_of_their_own_and_end_with_all_that_runs_on_them() {
    let space = Space::empty();
    let mut hosts = Hosts::start(3);
    for host in &hosts.all {
        let root = hosts.root(host);
        let script = format!("cd {root} && echo {} >> name && cat name", host.name);
        let said = hosts.ssh(&space, host, &script).ok();
        assert_eq!(said.stdout, format!("{}\n", host.name));
        let there = fs::read_to_string(host.srv("name")).expect("reads");
        assert_eq!(there, format!("{}\n", host.name));
    }
    let root = hosts.root(&hosts.all[0]);
    let left = format!("cd {root}; setsid sleep 1000 </dev/null >/dev/null 2>&1 &");
    let _ = hosts.ssh(&space, &hosts.all[0], &left).ok();
    assert!(TcpStream::connect(("127.0.0.1", hosts.all[0].port)).is_ok());
    assert!(hosts.all[0].processes().len() > 1);
    hosts.all[0].stop();
    wait_until("the end of the host", || {
        hosts.all[0].processes().is_empty().then_some(())
    });
    assert_eq!(hosts.ssh(&space, &hosts.all[0], "true").code, 255);
    hosts.reboot(0);
    let _ = hosts.ssh(&space, &hosts.all[0], "true").ok();
    hosts.change_key(1);
    let refused = hosts.ssh(&space, &hosts.all[1], "true").fails(255);
    assert!(
        refused.stderr.contains("Host key verification failed"),
        "{refused}"
    );
    assert!(!hosts.kdl().is_empty());
}
