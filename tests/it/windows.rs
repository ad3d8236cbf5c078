//! Windows: hours in which runs and waves may begin, around the present moment.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use insta::assert_snapshot;

use crate::filters::replaced;
use crate::hosts::Hosts;
use crate::space::{Output, Space};

/// Returns daily hours in UTC that begin and end so many minutes from now. They may go over
/// midnight, as now may.
fn hours(from: i64, to: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
    let now = i64::try_from(now.as_secs()).expect("fits") / 60;
    let clock = |minutes: i64| {
        let minutes = (now + minutes).rem_euclid(1440);
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    };
    format!("{}-{}", clock(from), clock(to))
}

/// Hours that are far from now, and hours that now is in the middle of.
fn closed() -> String {
    hours(360, 420)
}

fn open() -> String {
    hours(-360, 360)
}

fn app(hosts: &Hosts, windows: &str, of_rollout: &str) -> Space {
    let space = Space::new(&format!(
        r#"{}
environment "e" {{
    {windows}
    rollout "all" on="h1 h2" serial=1 {{
        {of_rollout}
        use "file"
    }}
}}
"#,
        hosts.kdl()
    ));
    space.write(
        "recipes/file.kdl",
        "recipe \"file\" {\n step \"w\" { write \"{host.root}/file\" \"x\"; }\n}\n",
    );
    space
}

fn is_untouched(hosts: &Hosts) -> bool {
    hosts.all.iter().all(|host| !host.srv(".rel").exists())
}

fn shown(output: &Output) -> String {
    let when = (r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d", "[WHEN]");
    replaced(&output.to_string(), &[when])
}

#[test]
fn outside_its_hours_nothing_begins() {
    let hosts = Hosts::start(2);
    let space = app(&hosts, &format!("window \"{}\" tz=\"UTC\"", closed()), "");
    let stopped = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&stopped), @r#"
    --- stderr
    error: `e` is outside its window
      window  it opens [WHEN] (UTC)
      help: nothing was changed; to continue anyway: `--override window --reason "…"`
    --- exit code 1
    "#);
    let plan = space.run(["e", "--plan"]).ok();
    let told = shown(&plan);
    let told: Vec<&str> = told.lines().filter(|l| l.contains("window")).collect();
    assert_snapshot!(told.join("\n"), @r"e  outside its window: it opens [WHEN] (UTC)");
    assert!(is_untouched(&hosts));
    // A saved plan is stopped as well.
    let _ = space.run(["e", "--plan-out", "plan.json"]).ok();
    let stopped = space.run(["apply", "plan.json"]).fails(1);
    assert!(stopped.stderr.contains("outside its window"), "{stopped}");
    assert!(is_untouched(&hosts));
    // A person goes over it, and says why.
    let _ = space.run(["e", "--override", "window"]).fails(2);
    let args = ["e", "--override", "window", "--reason", "a hot fix"];
    let _ = space.run(args).ok();
    for host in &hosts.all {
        assert!(host.srv("file").exists());
        let journal = fs::read_to_string(host.srv(".rel/e/journal")).expect("reads");
        let line = journal.lines().find(|l| l.contains("\toverridden\t"));
        let columns: Vec<&str> = line.expect("a line").split('\t').collect();
        assert_eq!(
            (columns[5], columns[6], columns[8]),
            ("e", "window", "a hot fix")
        );
    }
    // With nothing to do there is nothing to stop.
    let again = space.run(["e"]).ok();
    assert!(again.stderr.contains("nothing to do"), "{again}");
}

#[test]
fn within_its_hours_it_runs_by_the_clock_of_the_place() {
    let hosts = Hosts::start(2);
    // Of several one is enough; but those of the rollout hold as well.
    let windows = format!("window \"{}\" \"{}\" tz=\"UTC\"", closed(), open());
    let own = format!("window \"{}\" tz=\"UTC\"", closed());
    let space = app(&hosts, &windows, &own);
    let stopped = space.run(["e"]).fails(1);
    assert!(stopped.stderr.contains("outside its window"), "{stopped}");
    assert!(is_untouched(&hosts));
    // Twelve hours from here it is another time: what is closed in UTC is open there.
    let there = hours(360, 1080);
    let space = app(&hosts, &format!("window \"{there}\""), "");
    let run = |tz: &str| space.finish(space.rel(["e"]).env("TZ", tz));
    let stopped = run("UTC0").fails(1);
    assert!(stopped.stderr.contains("(local)"), "{stopped}");
    let unknown = run("No/Such_Place").fails(2);
    assert!(
        unknown.stderr.contains("`TZ` names no time zone"),
        "{unknown}"
    );
    assert!(is_untouched(&hosts));
    let _ = run("XYZ-12").ok();
    assert!(hosts.all.iter().all(|host| host.srv("file").exists()));
    let space = app(
        &hosts,
        "window \"Mon 09:00-10:00\" tz=\"No/Such_Place\"",
        "",
    );
    let unknown = space.run(["e"]).fails(2);
    assert!(
        unknown.stderr.contains("no time zone `No/Such_Place`"),
        "{unknown}"
    );
}

#[test]
fn mistakes_about_windows_are_found_when_the_file_is_read() {
    let space = Space::new(
        r#"
host "h1" local=#true
environment "e" {
    window "Mon-Thu 9-16"
    window "Someday 09:00-16:00" tz="../etc/passwd"
    window
    rollout "r" on="h1" {
        window "09:00-25:00"
        use "wait-for" command="true"
    }
}
"#,
    );
    assert_snapshot!(space.run(["check"]).fails(2), @r#"
    --- stderr
    rel::build::releasefile::bad_window

      × `9` is not a time of day, such as `09:00`
       ╭─[Releasefile.kdl:4:12]
     4 │     window "Mon-Thu 9-16"
       ·            ───────┬──────
       ·                   ╰── not understood
       ╰────
      help: write `Mon-Thu 09:00-16:00`, `Sat,Sun 22:00-04:00` or `01:00-05:00`

    rel::build::releasefile::bad_window

      × `Someday` is not a day: there are Mon Tue Wed Thu Fri Sat Sun
       ╭─[Releasefile.kdl:5:12]
     5 │     window "Someday 09:00-16:00" tz="../etc/passwd"
       ·            ──────────┬──────────
       ·                      ╰── not understood
       ╰────
      help: write `Mon-Thu 09:00-16:00`, `Sat,Sun 22:00-04:00` or `01:00-05:00`

    rel::build::releasefile::bad_window

      × `../etc/passwd` is not a time zone name
       ╭─[Releasefile.kdl:5:37]
     5 │     window "Someday 09:00-16:00" tz="../etc/passwd"
       ·                                     ───────┬───────
       ·                                            ╰── not a zone
       ╰────
      help: write `America/Montreal`, `UTC` or `local`

    rel::build::releasefile::missing_argument

      × `window` needs an argument: days and hours
       ╭─[Releasefile.kdl:6:5]
     6 │     window
       ·     ───┬──
       ·        ╰── nothing follows
       ╰────
      help: write `window "…"`

    rel::build::releasefile::bad_window

      × `25:00` is not a time of day, such as `09:00`
       ╭─[Releasefile.kdl:8:16]
     8 │         window "09:00-25:00"
       ·                ──────┬──────
       ·                      ╰── not understood
       ╰────
      help: write `Mon-Thu 09:00-16:00`, `Sat,Sun 22:00-04:00` or `01:00-05:00`
    --- exit code 2
    "#);
}
