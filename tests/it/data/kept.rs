//! What stays of backups and copies when runs are cut off, or somebody removes what they made.

use std::fs;

use rustix::process::Signal;

use crate::space::{Job, Space, wait_until};

/// A host with a database that is one file, `db/live`, and a driver for it.
struct Flat(Space);

impl Flat {
    /// With the uses of an environment `nightly`. `back-up` is a backup that can be given more.
    fn new(uses: &str) -> Self {
        let back_up = "use \"backup\" on=\"db\" driver=\"flat\" into=\"{host.root}/backups\"";
        let space = Space::new(&format!(
            "host \"db\" local=#true root=\"db\"\nenvironment \"nightly\" {{\n{}\n}}\n",
            uses.replace("back-up", back_up)
        ));
        space.write("db/live", "1\n");
        space.write(
            "recipes/flat.kdl",
            r#"
driver "flat" {
    param "live" default="{host.root}/live"
    param "full" type="command" default="cp {live} \"$backup/copy\"; cksum <{live} >\"$proof\""
    param "incremental" type="command" default="eval {full}"
    param "restore" type="command" default="mkdir \"$place\"; cp \"$backup/copy\" \"$place\""
    param "fingerprint" type="command" default="cksum <\"$place/copy\""
    param "check" type="command" default="test -s \"$place/copy\""
    param "drop" type="command" default="rm -rf -- \"$place\""
}
"#,
        );
        Self(space)
    }

    /// Makes a backup, whenever the last one was made; returns its name.
    fn back_up(&self) -> String {
        let _ = self.0.run(["nightly", "--force"]).ok();
        self.latest("backups")
    }

    /// What `latest` leads to.
    fn latest(&self, into: &str) -> String {
        let link = self.0.path(format!("db/{into}/latest"));
        let link = fs::read_link(link).expect("a link");
        link.into_os_string().into_string().expect("a name")
    }

    /// The names that are marked.
    fn marked(&self, into: &str) -> Vec<String> {
        let list = format!("ls db/{into} | sed -n 's/[.]rel-copy$//p'");
        self.0.shell(&list).lines().map(str::to_owned).collect()
    }

    /// Runs with an `rm` that removes the first file of a directory that is no scratch place, and
    /// hangs; kills the run then.
    fn cut_removal(&self, args: &[&str]) {
        let hangs = r#"#!/bin/sh
for one; do
    case $one in *scratch*) continue ;; esac
    for file in "$one"/copy "$one"/artifact/page; do
        if [ -f "$file" ]; then
            /bin/rm -f -- "$file"
            : >CUT
            sleep 60
        fi
    done
done
exec /bin/rm "$@"
"#;
        let cut = self.0.path("db/cut").display().to_string();
        self.0.write("bin/rm", hangs.replace("CUT", &cut));
        self.0.shell("chmod +x bin/rm");
        let mut rel = self.0.rel(args);
        let path = std::env::join_paths([self.0.path("bin"), "/usr/bin".into(), "/bin".into()]);
        let job = self.0.start(rel.env("PATH", path.expect("paths")));
        self.kill(job, || self.0.has("db/cut"));
    }

    /// Kills a run when something holds, and waits until the host has noticed.
    fn kill(&self, job: Job<'_>, holds: impl Fn() -> bool) {
        wait_until("the moment", || holds().then_some(()));
        job.signal(Signal::KILL);
        let _ = job.finish();
        wait_until("the host's guard", || {
            (!self.0.has("db/.rel/nightly/lease")).then_some(())
        });
    }

    /// Makes it as if the last run had been cut off before a step.
    fn cut(&self, step: &str) {
        let journal = self.0.read("db/.rel/nightly/journal");
        let is_it = |line: &str| line.starts_with("1\tstart\t") && line.contains(step);
        let count = journal.lines().count();
        let at = journal.lines().rev().position(is_it).expect("was done");
        let kept: Vec<&str> = journal.lines().take(count - at - 1).collect();
        self.0
            .write("db/.rel/nightly/journal", kept.join("\n") + "\n");
    }
}

/// Another environment with the same `into`, and what came before an owner was recorded.
#[test]
fn a_directory_of_backups_belongs_to_one_environment() {
    let flat = Flat::new("back-up");
    let text = flat.0.read("Releasefile.kdl");
    let weekly = text.replace("nightly", "weekly");
    let weekly = weekly.split_once('\n').expect("two parts").1;
    flat.0.write("Releasefile.kdl", format!("{text}{weekly}"));
    let first = flat.back_up();
    let told = flat.0.run(["weekly"]).fails(1);
    let says = "/backups is taken by backup of nightly on db: give backup a directory of its own";
    assert!(told.stderr.contains(says), "{told}");
    assert_eq!(flat.latest("backups"), first);
    assert_eq!(flat.marked("backups"), [first.as_str()]);
    // Nothing is built upon what is another's.
    flat.0.remove("db/backups/.rel-owner");
    let told = flat.0.run(["weekly"]).ok();
    assert!(told.stderr.contains("is of another use"), "{told}");
    assert_eq!(flat.0.read("db/backups/latest/rel-increments"), "0\n");
    let told = flat.0.run(["nightly", "--force"]).fails(1);
    assert!(told.stderr.contains("taken by backup of weekly"), "{told}");
}

/// In one run both have the same names.
#[test]
fn a_directory_belongs_to_one_use() {
    // By another name, which `rel check` does not know.
    let uses = "back-up\n\
                use \"backup\" as=\"two\" on=\"db\" driver=\"flat\" \
                live=\"{host.root}/other\" into=\"{host.root}/alias\"";
    let flat = Flat::new(uses);
    flat.0.write("db/other", "2\n");
    flat.0
        .shell("mkdir db/backups; ln -s backups db/alias; chmod -R go-w db");
    let told = flat.0.run(["nightly"]).fails(1);
    assert!(
        told.stderr.contains("/alias is taken by backup of"),
        "{told}"
    );
    let first = flat.latest("backups");
    assert_eq!(flat.marked("backups"), [first]);
    assert_eq!(flat.0.read("db/backups/latest/copy"), "1\n");

    let evolve = |name: &str| {
        format!(
            "use \"evolve\" as=\"{name}\" on=\"db\" copy=\"{{host.root}}/copy\" \
             into=\"{{host.root}}/{name}\" \
             data=\"{{host.root}}/live-{name}\" command=\"echo {name} >evolved\"\n"
        )
    };
    let flat = Flat::new(&(evolve("one") + &evolve("two")));
    flat.0
        .shell("mkdir db/copy db/one; : >db/copy.rel-copy; ln -s one db/two");
    let told = flat.0.run(["nightly"]).fails(1);
    assert!(told.stderr.contains("/two is taken by one of"), "{told}");
    assert_eq!(flat.0.shell("ls -A db/one"), ".rel-owner\n", "{told}");
}

/// One use on two hosts that see the same files.
#[test]
fn a_directory_belongs_to_one_host() {
    let space = Flat::new("").0;
    let shared = space.path("shared");
    space.write("two/live", "2\n").write(
        "Releasefile.kdl",
        format!(
            "host \"db\" local=#true root=\"db\"\nhost \"two\" local=#true root=\"two\"\n\
             environment \"nightly\" {{\n    \
             use \"backup\" on=\"db two\" driver=\"flat\" into=\"{}\"\n}}\n",
            shared.display()
        ),
    );
    let flat = Flat(space);
    let told = flat.0.run(["nightly"]).fails(1);
    assert!(told.stderr.contains("is taken by backup of"), "{told}");
    // The one that was first goes on alone.
    let owner = flat.0.read("shared/.rel-owner");
    let first = match owner.as_str() {
        "backup of nightly on db\n" => "db",
        "backup of nightly on two\n" => "two",
        _ => panic!("{owner}"),
    };
    let text = flat.0.read("Releasefile.kdl");
    flat.0.write(
        "Releasefile.kdl",
        text.replace("\"db two\"", &format!("\"{first}\"")),
    );
    let _ = flat.0.run(["nightly"]).ok();
    let live = flat.0.read(format!("{first}/live"));
    assert_eq!(flat.0.read("shared/latest/copy"), live);
}

#[test]
fn what_was_cut_off_in_the_proof_does_not_stay() {
    let flat = Flat::new("back-up verify=\"echo >proven; sleep 60\"");
    let job = flat.0.begin(["nightly"]);
    flat.kill(job, || flat.0.has("db/proven"));
    let left = || {
        flat.0
            .shell("ls db/backups | grep -c 'rel-part$\\|^scratch' || :")
    };
    assert_eq!(left(), "2\n");
    let text = flat.0.read("Releasefile.kdl");
    flat.0
        .write("Releasefile.kdl", text.replace("sleep 60", "true"));
    let _ = flat.0.run(["nightly"]).ok();
    assert_eq!(left(), "0\n");
    assert_eq!(flat.marked("backups"), [flat.latest("backups")]);
}

#[test]
fn a_part_of_a_backup_has_no_mark() {
    let flat = Flat::new("back-up keep=1");
    let first = flat.back_up();
    flat.cut_removal(&["nightly", "--force"]);
    assert!(!flat.marked("backups").contains(&first));
    // Also where it may stay by now.
    let text = flat.0.read("Releasefile.kdl");
    flat.0
        .write("Releasefile.kdl", text.replace("keep=1", "keep=3"));
    let _ = flat.back_up();
    let marked = flat.marked("backups");
    assert_eq!(marked.len(), 2, "{marked:?}");
    for name in &marked {
        assert!(flat.0.has(format!("db/backups/{name}/copy")), "{name}");
    }
    assert_eq!(flat.0.shell("ls db/backups | wc -l"), "5\n");
}

/// One that is released again has the same name.
#[test]
fn a_part_of_a_release_does_not_pass_for_the_whole() {
    let flat = Flat::new(
        "use \"versioned-release\" on=\"db\" artifact=\"{page}\" root=\"{host.root}/site\" keep=0\n\
         needs \"page\"",
    );
    let text = flat.0.read("Releasefile.kdl");
    let page = "var \"text\" \"1\"\n\
                target \"page\" { outputs \"page\"; run \"echo {text} >page\"; }\n";
    flat.0.write("Releasefile.kdl", format!("{page}{text}"));
    let _ = flat.0.run(["nightly", "--var", "text=1"]).ok();
    let _ = flat.0.run(["nightly", "--var", "text=2"]).ok();
    flat.cut_removal(&["nightly", "--var", "text=3"]);
    let _ = flat.0.run(["nightly", "--var", "text=1"]).ok();
    assert_eq!(flat.0.read("db/site/current/artifact/page"), "1\n");
}

#[test]
fn a_backup_that_is_gone_is_made_anew() {
    let flat = Flat::new("back-up max-age=\"24h\"");
    for what in ["", ".rel-copy"] {
        let _ = flat.0.run(["nightly"]).ok();
        let last = flat.latest("backups");
        let again = flat.0.run(["nightly"]).ok();
        assert!(again.stderr.contains("nothing to do"), "{again}");
        flat.0.shell(&format!("rm -rf db/backups/{last}{what}"));
        let status = flat.0.run(["status", "nightly"]).ok();
        assert!(!status.stdout.contains("fresh"), "{status}");
        let plan = flat.0.run(["nightly", "--plan"]).ok();
        assert!(plan.stdout.contains("steps would run"), "{plan}");
        let _ = flat.0.run(["nightly"]).ok();
        let anew = flat.latest("backups");
        assert_ne!(anew, last);
        assert!(flat.0.has(format!("db/backups/{anew}/copy")));
        assert!(flat.marked("backups").contains(&anew));
    }
}

#[test]
fn a_backup_that_is_gone_is_no_reason_to_remove_another() {
    let flat = Flat::new("back-up keep=2");
    let first = flat.back_up();
    let second = flat.back_up();
    flat.0.shell(&format!("rm -r db/backups/{second}"));
    let third = flat.back_up();
    assert_eq!(flat.marked("backups"), [first.as_str(), third.as_str()]);
    assert!(flat.0.has(format!("db/backups/{first}/copy")));
    let fourth = flat.back_up();
    assert_eq!(flat.marked("backups"), [third, fourth]);
}

#[test]
fn a_backup_that_is_gone_is_not_marked() {
    for step in ["\tbackup/keep\t", "\tbackup/mark\t", "\tbackup/latest\t"] {
        let flat = Flat::new("back-up keep=1");
        let first = flat.back_up();
        // The second one no longer exists when its run goes on.
        flat.0.shell("cp -a db/backups db/former");
        let _ = flat.back_up();
        flat.cut(step);
        flat.0.shell("rm -r db/backups; mv db/former db/backups");
        let told = flat.0.run(["nightly"]).fails(1);
        assert!(told.stderr.contains("gone"), "{told}");
        assert_eq!(flat.marked("backups"), [first.as_str()], "{told}");
        assert_eq!(flat.latest("backups"), first, "{told}");
        // The next one begins anew.
        let _ = flat.0.run(["nightly"]).ok();
        let last = flat.latest("backups");
        assert_ne!(last, first);
        assert_eq!(flat.marked("backups"), [last]);
    }
}

/// What a run that was cut off before one of these steps had made is gone when it goes on.
fn is_refused(steps: &[&str]) {
    let copy = "use \"db-copy\" as=\"copy\" on=\"db\" from=\"db\" into=\"{host.root}/copies\" \
                snapshot=\"cp {from.root}/live copy\"\n\
                use \"evolve\" on=\"db\" after=\"copy\" copy=\"{host.root}/copies/latest\" \
                into=\"{host.root}/evolved\" data=\"{host.root}/data\" command=\"echo 2 >>copy\"";
    for step in steps {
        let flat = Flat::new(copy);
        let _ = flat.0.run(["nightly"]).ok();
        let first = flat.latest("copies");
        flat.0
            .shell("mkdir db/former; cp -a db/copies db/evolved db/data db/former");
        let _ = flat.0.run(["nightly", "--force"]).ok();
        let former = fs::read_link(flat.0.path("db/former/data")).expect("a link");
        flat.cut(step);
        flat.0
            .shell("cd db; rm -r evolved data; mv former/evolved former/data .");
        if step.contains("copy/") {
            flat.0.shell("cd db; rm -r copies; mv former/copies .");
        }
        let told = flat.0.run(["nightly"]).fails(1);
        assert!(told.stderr.contains("gone"), "{told}");
        if step.contains("copy/") {
            assert_eq!(flat.marked("copies"), [first.as_str()], "{told}");
            assert_eq!(flat.latest("copies"), first, "{told}");
        }
        let live = fs::read_link(flat.0.path("db/data")).expect("a link");
        assert_eq!(live, former, "{told}");
        let _ = flat.0.run(["nightly"]).ok();
        assert_eq!(flat.0.read("db/data/copy"), "1\n2\n");
    }
}

#[test]
fn a_copy_that_is_gone_is_not_marked() {
    is_refused(&["\tcopy/mark\t", "\tcopy/latest\t"]);
}

#[test]
fn a_database_that_is_gone_is_not_switched_to() {
    is_refused(&["\tevolve/switch\t"]);
}
