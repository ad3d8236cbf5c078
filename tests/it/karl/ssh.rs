//! Over SSH, to three hosts with views of their own.

use std::time::Duration;

use super::{Karl, browser::Seen, tree};
use crate::hosts::Hosts;

/// What the branch's pages are headed with at first.
const OLD: &str = "KARL, teaser branch";
/// What they are headed with later.
const NEW: &str = "KARL, second edition";

/// The file that makes one release differ from another at a glance.
const BRAND: &str = "branches/branch2/src/karl/brand.py";

/// The example, and the hosts `production`, `karl04` and `karl05`.
struct Remote {
    karl: Karl,
    hosts: Hosts,
}

impl Remote {
    fn new() -> Self {
        let mut karl = Karl::new();
        let mut hosts = Hosts::start(3);
        let children = [
            ("production", ""),
            (
                "karl04",
                "    var \"tier\" \"site\"\n    var \"port\" \"{site-port}\"\n    \
                 var \"address\" \"127.0.0.1\"\n    \
                 var \"database\" \"http://127.0.0.1:{database-port}\"\n    \
                 var \"url\" \"http://127.0.0.1:{site-port}\"\n",
            ),
            (
                "karl05",
                "    var \"tier\" \"db\"\n    var \"port\" \"{database-port}\"\n    \
                 var \"address\" \"127.0.0.1\"\n",
            ),
        ];
        let mut inventory = String::new();
        for (i, (name, children)) in children.into_iter().enumerate() {
            hosts.all[i].name = name.to_owned();
            inventory.push_str(&hosts.node(&hosts.all[i], children));
        }
        karl.space.write("hosts.kdl", inventory);
        karl.hosts_from("hosts.kdl");
        // A release that is not healthy is given up sooner.
        let health = "        health \"venv/bin/karl ask --run run /{branch}/health\"\n";
        let sooner = format!("{health}        within \"8s\"\n");
        let text = karl.space.read("Releasefile.kdl");
        assert_eq!(text.matches(health).count(), 2, "{text}");
        karl.space
            .write("Releasefile.kdl", text.replace(health, &sooner));
        Self { karl, hosts }
    }

    /// Runs something while both sites are asked all the time, and a little longer.
    fn while_asked<T>(&self, run: impl FnOnce() -> T) -> (T, Seen) {
        let prober = self.karl.prober();
        std::thread::sleep(Duration::from_millis(200));
        let result = run();
        std::thread::sleep(Duration::from_millis(500));
        (result, prober.stop())
    }

    fn trees(&self) -> Vec<std::collections::BTreeMap<String, String>> {
        let hosts = self.hosts.all.iter();
        hosts.map(|host| tree(&host.srv("."))).collect()
    }
}

#[test]
fn no_request_is_lost_by_a_bad_release_a_good_one_and_the_way_back() {
    let remote = Remote::new();
    let karl = &remote.karl;
    let first = karl.stage(&[]).ok();
    assert_eq!(first.stdout.lines().count(), 2, "{first}");
    karl.answers();
    nothing_to_do(&remote);

    // Not healthy: the old release answers during all of it.
    let site = "branches/branch2/src/karl/site.py";
    let good = karl.space.read("app/src/karl/site.py");
    let health =
        "\"\"\"Says 200 only when the database has answered just now, for every customer.\"\"\"";
    assert!(good.contains(health));
    // A mistake that tests of the sources do not meet.
    let mistake = "if web.release() != \"source\":\n            raise RuntimeError";
    let bad = format!("{health}\n        {mistake}");
    karl.space.write(site, good.replace(health, &bad));
    let (failed, seen) = remote.while_asked(|| karl.stage(&[]));
    let failed = failed.fails(1);
    for part in [
        "karl04",
        "site/start",
        "/branch2/site/log/",
        "the other steps were rolled back",
    ] {
        assert!(failed.stderr.contains(part), "no `{part}` in\n{failed}");
    }
    assert!(seen.only(&[OLD]) > 300, "{seen:?}");

    // Healthy: only the old or the new one, and never none.
    karl.space.remove(site);
    karl.edit(BRAND, OLD, NEW);
    planned(&remote);
    let (good, seen) = remote.while_asked(|| karl.stage(&[]));
    let _ = good.ok();
    assert!(seen.only(&[OLD, NEW]) > 100, "{seen:?}");
    nothing_to_do(&remote);

    let (back, seen) = remote.while_asked(|| karl.stage(&["--rollback"]));
    let _ = back.ok();
    assert!(seen.only(&[OLD, NEW]) > 20, "{seen:?}");
    let page = karl.browser("osf").home().expect("answers");
    assert!(page.contains(OLD), "{page}");
}

/// A plan says what would run and changes nothing on any host.
fn planned(remote: &Remote) {
    let before = remote.trees();
    let plan = remote.karl.stage(&["--plan"]).ok();
    assert!(plan.stdout.contains("karl04"), "{plan}");
    assert_eq!(remote.trees(), before);
}

/// A second run asks each host once and changes nothing.
fn nothing_to_do(remote: &Remote) {
    let before = remote.trees();
    let told = remote.karl.told(&[]);
    assert_eq!(told["ran"], 0, "{told:#}");
    assert_eq!(told["round_trips"], 3, "one a host");
    assert_eq!(remote.trees(), before);
}
