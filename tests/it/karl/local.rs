//! With directories of this machine as hosts.

use serde_json::{Value, json};

use super::{CUSTOMERS, Karl, tree};

/// Returns how many targets were settled this way.
fn count(targets: &Value, how: &str) -> usize {
    let targets = targets.as_object().expect("targets");
    targets.values().filter(|h| *h == how).count()
}

#[test]
fn staging_ends_with_sites_that_answer_and_again_changes_nothing() {
    let karl = Karl::new();
    let first = karl.stage(&[]).ok();
    let urls: Vec<String> = CUSTOMERS.iter().map(|c| karl.url(c)).collect();
    assert_eq!(first.stdout.lines().collect::<Vec<_>>(), urls, "{first}");

    // A page to log in first; behind it what the evolve scripts have made.
    for customer in CUSTOMERS {
        let stranger = super::Browser::new(karl.site_port, customer);
        let page = stranger.home().expect("answers");
        assert!(page.contains("Log in"), "{page}");
        assert!(!page.contains("Evolved"), "{page}");
    }
    karl.answers();
    let page = karl.browser("osf").home().expect("answers");
    assert!(page.contains("Schema level 3"), "{page}");

    let before = tree(&karl.space.path(".rel/hosts"));
    let built = tree(&karl.space.path("build"));
    let told = karl.told(&[]);
    assert_eq!(told["ran"], 0, "{told:#}");
    assert_eq!(told["undone"], 0);
    assert_eq!(told["round_trips"], 3, "one a host");
    assert_eq!(tree(&karl.space.path(".rel/hosts")), before);
    assert_eq!(tree(&karl.space.path("build")), built);
    let (targets, _) = karl.build("index-snapshot[branch2]");
    assert_eq!(count(&targets, "fresh"), 7, "{targets:#}");

    let again = karl.stage(&[]).ok();
    for part in ["rel: staging: nothing to do, ", "on 3 hosts, 3 round trips"] {
        assert!(again.stderr.contains(part), "no `{part}` in\n{again}");
    }
    assert_eq!(again.stdout, first.stdout);
}

#[test]
fn an_image_is_made_only_when_something_in_it_changed() {
    let karl = Karl::new();
    let (targets, _) = karl.build("image");
    assert_eq!(targets, json!({"vendor-wheels": "ran", "image": "ran"}));
    let all_fresh = json!({"vendor-wheels": "fresh", "image": "fresh"});
    let (targets, questions) = karl.build("image");
    assert_eq!(targets, all_fresh);

    let template = "app/src/karl/templates/home.html";
    karl.edit(template, "<table>", "<!-- newest first --><table>");
    assert_eq!(karl.build("image"), (all_fresh.clone(), questions));

    let product = karl
        .space
        .shell("skopeo inspect --format '{{.Digest}}' oci:build/image:karl");
    let line = "    \"markline>=1.0\",\n";
    let more = format!("{line}    \"slugs>=0.4\",\n");
    karl.edit("app/pyproject.toml", line, &more);
    let why = karl.run(&["why", "image"]).ok();
    assert!(why.stdout.contains("requires slugs>=0.4"), "{why}");
    let (targets, _) = karl.build("image");
    assert_eq!(targets, json!({"vendor-wheels": "fresh", "image": "ran"}));
    let other = karl
        .space
        .shell("skopeo inspect --format '{{.Digest}}' oci:build/image:karl");
    assert_ne!(product, other);

    karl.edit("app/pyproject.toml", &more, line);
    let (targets, processes) = karl.build("image");
    assert_eq!(
        targets,
        json!({"vendor-wheels": "fresh", "image": "restored"})
    );
    // No more than what a build asks that runs nothing: its tools, probes and products.
    assert_eq!(processes, questions);
    assert_eq!(
        karl.space
            .shell("skopeo inspect --format '{{.Digest}}' oci:build/image:karl"),
        product
    );
}

#[test]
fn another_branch_of_the_checkout_and_back_runs_no_command() {
    let karl = Karl::new();
    let target = "index-snapshot[branch2]";
    karl.space
        .shell("git init -q && git add -A && git commit -q -m first");
    let _ = karl.build(target);
    let (_, questions) = karl.build(target);
    karl.space.shell("git checkout -q -b other");
    karl.edit("branches/branch2/src/karl/brand.py", "teaser", "other");
    karl.space.shell("git commit -q -a -m other");
    let (targets, _) = karl.build(target);
    assert_eq!(targets["wheel[branch2]"], "ran", "{targets:#}");

    for branch in ["main", "other", "main"] {
        karl.space.shell(&format!("git checkout -q {branch}"));
        let (targets, processes) = karl.build(target);
        assert_eq!(count(&targets, "ran"), 0, "{targets:#}");
        assert!(count(&targets, "restored") > 0, "{targets:#}");
        assert_eq!(processes, questions);
        // The one that was there, not only some one.
        let brand = karl.space.read("build/checkout/branch2/src/karl/brand.py");
        assert_eq!(brand.contains("other branch"), branch == "other");
    }
}
