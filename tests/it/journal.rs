//! A journal that has become long: it is shortened, and what holds is not forgotten.

use std::fs;

use crate::hosts::Hosts;
use crate::space::Space;

/// So many runs in the history, each of so many steps.
const OLD_RUNS: usize = 150;
const OLD_STEPS: usize = 6;

/// Lines of runs that another use had before this one, in a journal's words.
fn old_runs() -> String {
    let mut text = String::new();
    for run in 0..OLD_RUNS {
        let mut line = |event: &str, seq: &str, id: &str| {
            let columns = format!("{event}\t{}\told-{run:x}\t{seq}\t{id}", 1_700_000_000 + run);
            text.push_str(&format!("1\t{columns}\tkey\tann@desk\t-\n"));
        };
        for step in 1..=OLD_STEPS {
            let (seq, id) = (step.to_string(), format!("other/step-{step}"));
            line("start", &seq, &id);
            line("done", &seq, &id);
        }
        line("ok", "-", "-");
    }
    text
}

#[test]
fn a_long_journal_is_shortened_and_what_holds_is_kept() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = Space::new(&format!(
        r#"
target "page" {{ inputs "page.in"; outputs "build/page"; run "cp page.in {{out}}"; }}
{}
environment "staging" {{
    needs "page"
    use "versioned-release" as="site" on="h1" artifact="{{page}}" root="{{host.root}}/site"
}}
"#,
        hosts.kdl()
    ));
    let live = || fs::read_to_string(host.srv("site/current/artifact/page")).expect("a release");
    space.write("page.in", "first\n");
    let _ = space.run(["staging"]).ok();
    let path = host.srv(".rel/staging/journal");
    let journal = || fs::read_to_string(&path).expect("a journal");
    // The first release is older than the history.
    let long = journal() + &old_runs();
    fs::write(&path, &long).expect("writes");
    space.write("page.in", "second\n");
    let _ = space.run(["staging"]).ok();
    let short = journal();
    assert!(short.starts_with("1\tshortened\t"), "{short}");
    let told = OLD_RUNS * (2 * OLD_STEPS + 1);
    assert!(short.lines().count() < told / 2, "{short}");
    let away: Vec<_> = fs::read_dir(host.srv(".rel/staging/journals"))
        .expect("a directory")
        .map(|entry| fs::read_to_string(entry.expect("a file").path()).expect("text"))
        .collect();
    assert_eq!(away.len(), 1);
    assert!(away[0].starts_with(&long), "the whole of it is put away");
    assert!(!host.srv(".rel/staging/journal.new").exists());

    let again = space.run(["staging"]).ok().to_string();
    assert!(again.contains("nothing to do"), "{again}");
    let history = space.run(["history", "staging", "-n", "3"]).ok().stdout;
    let last: Vec<&str> = history.lines().skip(3).collect();
    let more = ["and 48 older runs", "`-n 51` or more shows earlier runs"];
    assert_eq!(last, more, "{history}");
    let all = space.run(["history", "staging", "-n", "1000"]).ok().stdout;
    assert_eq!(all.lines().count(), OLD_RUNS + 2, "{all}");
    assert!(!all.contains("not ended"), "{all}");

    // The rollback leads to what is known by picked lines alone.
    assert_eq!(live(), "second\n");
    let _ = space.run(["staging", "--rollback"]).ok();
    assert_eq!(live(), "first\n");
    space.write("page.in", "first\n");
    // What a release notes and prunes stays so: these steps alone are of the second one.
    let back = space.run(["staging"]).ok().to_string();
    assert!(back.contains("2 steps ran, 2 up to date"), "{back}");
}
