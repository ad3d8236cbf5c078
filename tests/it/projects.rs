//! Projects that share a root on a host: each has the state of its environments to itself.

use std::fs;

use crate::space::{Output, Space, end_all_below};

/// Ends the services that a test has started.
struct Ends<'a>(&'a Space);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        end_all_below(&self.0.path("srv"));
    }
}

/// Returns a checkout in `dir` with this project, whose environment `live` links `DIR.current` and
/// starts a service at the root that all share.
fn checkout(space: &Space, dir: &str, project: &str, uses: &str) {
    let root = space.path("srv").display().to_string();
    space.write(
        format!("{dir}/Releasefile.kdl"),
        format!(
            "{project}\nvar \"to\" \"one\"\ntarget \"page\" {{ outputs \"page.txt\"; run \"echo {{to}} \
             >page.txt\"; }}\nhost \"h\" local=#true root=\"{root}\"\n\
             environment \"live\" {{\nneeds \"page\"\n{uses}\n}}\n"
        ),
    );
    space.write(
        format!("{dir}/recipes/link.kdl"),
        format!(
            "recipe \"link\" {{\n param \"to\"\n param \"page\" type=\"artifact\"\n step \"put\" \
             undo=#false {{ put \"{{page}}\" to=\"{root}/{dir}.page\"; }}\n step \"switch\" {{ symlink \
             \"{root}/{dir}.current\" to=\"{{to}}\"; }}\n}}\n"
        ),
    );
}

fn rel<const N: usize>(space: &Space, dir: &str, args: [&str; N]) -> Output {
    space.run(["-C", dir].into_iter().chain(args))
}

const LINK: &str = r#"use "link" on="h" to="{to}" page="{page}""#;

#[test]
fn projects_at_one_root_have_their_own_journals_services_and_ways_back() {
    let space = Space::empty();
    fs::create_dir_all(space.path("srv")).expect("creates");
    let _ends = Ends(&space);
    let service = |name: &str| {
        format!("{LINK}\nuse \"service\" as=\"{name}\" on=\"h\" run=\"exec sleep 1000\"")
    };
    checkout(&space, "karl", "project \"karl\"", &service("web"));
    checkout(&space, "ampel", "project \"ampel/2\"", &service("bus"));
    let first = rel(&space, "karl", ["live"]).ok();
    assert!(!first.stderr.contains("another project"), "{first}");
    assert_eq!(space.read("srv/.rel/live/project"), "karl\n");
    // The first run of the other one says where its state goes; later ones do not.
    let root = "[work]/srv";
    let own = format!("{root}/.rel/live@ampel_2+");
    let words = format!(
        "host `h` has the state of another project, `karl`, in {root}/.rel/live: the state of \
         `ampel/2` is kept in {own}"
    );
    let plan = rel(&space, "ampel", ["live", "--plan"]).ok();
    assert!(plan.stdout.contains(&format!("note: {words}")), "{plan}");
    let output = rel(&space, "ampel", ["live"]).ok();
    assert!(
        output.stderr.contains(&format!("warning: {words}")),
        "{output}"
    );
    let again = rel(&space, "ampel", ["live", "--var", "to=two"]).ok();
    assert!(!again.stderr.contains("another project"), "{again}");

    // Neither sees services or runs of the other one.
    for (dir, other, runs) in [("karl", "bus", 1), ("ampel", "web", 2)] {
        let status = rel(&space, dir, ["status", "live"]).ok().stdout;
        assert!(!status.contains(other), "{status}");
        let ended = rel(&space, dir, ["live", "--remove-orphans"]).ok().stderr;
        assert!(ended.contains("no service is an orphan"), "{ended}");
        let history = rel(&space, dir, ["history", "live"]).ok().stdout;
        assert_eq!(history.lines().count(), runs, "{history}");
    }
    // Each rolls back by itself, and a lock of one does not hold the other one up.
    let _ = rel(&space, "ampel", ["live", "--rollback"]).ok();
    let to = |name: &str| fs::read_link(space.path(format!("srv/{name}.current"))).ok();
    assert_eq!(to("ampel"), Some("one".into()));
    assert_eq!(to("karl"), Some("one".into()));
    let _ = rel(&space, "karl", ["lock", "live", "--reason", "audit"]).ok();
    for (dir, is_held) in [("karl", true), ("ampel", false)] {
        let plan = rel(&space, dir, ["live", "--plan"]).ok().stdout;
        assert_eq!(plan.contains("audit"), is_held, "{dir}: {plan}");
    }
}

#[test]
fn the_state_of_a_project_without_a_name_is_of_whoever_names_it_first() {
    let space = Space::empty();
    fs::create_dir_all(space.path("srv")).expect("creates");
    checkout(&space, "a", "", LINK);
    let _ = rel(&space, "a", ["live"]).ok();
    assert!(!space.has("srv/.rel/live/project"));
    // With a name, it goes on with what it had.
    checkout(&space, "a", "project \"a\"", LINK);
    let plan = rel(&space, "a", ["live"]).ok();
    assert!(plan.stderr.contains("nothing to do"), "{plan}");
    // A question writes nothing down, and neither does a run that has nothing to do.
    let _ = rel(&space, "a", ["live", "--var", "to=two"]).ok();
    assert_eq!(space.read("srv/.rel/live/project"), "a\n");
    // One that has lost its name is another one.
    checkout(&space, "a", "", LINK);
    let root = "[work]/srv";
    let output = rel(&space, "a", ["live", "--var", "to=three"]).ok();
    let words = format!(
        "host `h` has the state of project `a` in {root}/.rel/live, and this project has no name: \
         its state is kept in {root}/.rel/live@"
    );
    assert!(output.stderr.contains(&words), "{output}");
    assert!(space.has("srv/.rel/live@/journal"));
    // A new name is written down by a person.
    checkout(&space, "a", "project \"b\"", LINK);
    let output = rel(&space, "a", ["live", "--plan"]).ok();
    let help = format!("`b` is the new name of `a`, write it into {root}/.rel/live/project first");
    assert!(output.stdout.contains(&help), "{output}");
    space.write("srv/.rel/live/project", "b\n");
    let history = rel(&space, "a", ["history", "live"]).ok().stdout;
    assert_eq!(history.lines().count(), 2, "{history}");
}
