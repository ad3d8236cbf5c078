//! The functions that hosts run, without a host: tables of scripts and of their output, for every
//! shell at hand.
//!
//! A table (`shell/*.txt`) has cases `== NAME`, a script, a line `--`, and the expected standard
//! output. `! ` stands for the mark of an event, `~` for the directory of the case. Before each
//! script runs `shell/begin.sh`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::deploy::protocol::program::{
    COMMON, DETACHED, FOREIGN, LOGS, MANIFEST, QUERY, ROLLBACK_CHECKS, SESSION, SESSION_LIB, STEPS,
    SUPERVISOR, call, quote, strip_comments,
};

/// Shells that hosts have, as a command and its arguments. `tests/run` installs them.
pub(super) const SHELLS: [&[&str]; 3] = [&["dash"], &["bash"], &["busybox", "sh"]];

/// All texts of `protocol/` that hosts get.
pub(super) const TEXTS: [&str; 11] = [
    COMMON,
    FOREIGN,
    STEPS,
    DETACHED,
    ROLLBACK_CHECKS,
    MANIFEST,
    SESSION_LIB,
    QUERY,
    SESSION,
    SUPERVISOR,
    LOGS,
];

/// A script that waits for something waits no longer.
const LIMIT: Duration = Duration::from_secs(60);

/// All functions of sessions and programs.
static LIBRARY: LazyLock<String> = LazyLock::new(|| {
    let is_main = |text: &&&str| [SESSION, SUPERVISOR, LOGS].contains(text);
    let parts = TEXTS.iter().filter(|text| !is_main(text));
    parts.map(|text| strip_comments(text)).collect::<String>() + &call("")
});

/// Runs a script after the library and `shell/begin.sh`; returns what it prints, and its errors.
fn run(shell: &[&str], script: &str) -> (String, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().canonicalize().expect("is there");
    let files = tempfile::tempdir().expect("a directory");
    let at = |name: &str| files.path().join(name);
    let begin = include_str!("shell/begin.sh");
    std::fs::write(at("script"), format!("{}{begin}{script}", *LIBRARY)).expect("writes");
    let supervisor = format!("{}\n{}", strip_comments(COMMON), strip_comments(SUPERVISOR));
    std::fs::write(at("supervisor"), supervisor).expect("writes");
    let file = |name: &str| File::create(at(name)).expect("makes");
    let started = Command::new(shell[0])
        .args(&shell[1..])
        .arg(at("script"))
        .current_dir(&root)
        .env("LC_ALL", "C")
        .env("SUPERVISOR", at("supervisor"))
        .process_group(0)
        .stdin(Stdio::null())
        // Not pipes: what is left in the background would hold them.
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn();
    let mut child = started.unwrap_or_else(|e| panic!("{shell:?}: {e}; `tests/run` installs it"));
    let group = Pid::from_child(&child);
    let end = Instant::now() + LIMIT;
    let mut is_late = false;
    while child.try_wait().expect("waits").is_none() {
        is_late = Instant::now() > end;
        if is_late {
            let _ = kill_process_group(group, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // What the script left in the background.
    let _ = kill_process_group(group, Signal::KILL);
    assert!(!is_late, "{shell:?} took over {LIMIT:?}: {script}");
    let read =
        |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("reads")).into_owned();
    let out = read(&at("out")).replace("\u{1e}n ", "! ");
    let here = root.to_str().expect("text");
    (out.replace(here, "~"), read(&at("err")))
}

/// Runs a script in all shells at once.
fn run_all(script: &str) -> Vec<(&'static str, String, String)> {
    std::thread::scope(|scope| {
        let one = |shell: &'static [&str]| {
            scope.spawn(move || {
                let (out, errors) = run(shell, script);
                (shell[0], out, errors)
            })
        };
        let runs = SHELLS.map(one);
        runs.into_iter()
            .map(|run| run.join().expect("ends"))
            .collect()
    })
}

/// Runs all cases of a table in all shells.
fn check(table: &str) {
    let mut wrong = String::new();
    let mut tried = 0;
    for case in format!("\n{table}").split("\n== ").skip(1) {
        let (name, rest) = case.split_once('\n').expect("a script");
        let (script, expected) = rest.split_once("\n--\n").unwrap_or((rest, ""));
        let expected = expected.trim_end();
        for (shell, out, errors) in run_all(script) {
            tried += 1;
            if out.trim_end() != expected {
                wrong += &format!(
                    "== {name} [{shell}]\n{out}-- expected\n{expected}\n-- errors\n{errors}\n"
                );
            }
        }
    }
    assert!(tried >= SHELLS.len(), "the table has no case");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn lease_functions() {
    check(include_str!("shell/lease.txt"));
}

#[test]
fn journal_functions() {
    check(include_str!("shell/journal.txt"));
}

#[test]
fn file_functions() {
    check(include_str!("shell/files.txt"));
}

#[test]
fn link_functions() {
    check(include_str!("shell/links.txt"));
}

#[test]
fn step_functions() {
    check(include_str!("shell/steps.txt"));
}

#[test]
fn service_functions() {
    check(include_str!("shell/services.txt"));
}

#[test]
fn scope_functions() {
    check(include_str!("shell/scopes.txt"));
}

#[test]
fn detached_functions() {
    check(include_str!("shell/detached.txt"));
}

#[test]
fn session_functions() {
    check(include_str!("shell/session.txt"));
}

#[test]
fn stored_undo_scripts_of_former_versions() {
    check(include_str!("shell/undo.txt"));
}

/// Returns the functions of a text: name and body.
fn functions(text: &str) -> Vec<(String, String)> {
    let head = Regex::new(r"^(rel_[a-z0-9_]+)\(\)(.*)$").expect("a pattern");
    let mut found: Vec<(String, String)> = Vec::new();
    let mut is_open = false;
    for line in text.lines().filter(|l| !l.trim_start().starts_with('#')) {
        if let Some(head) = head.captures(line) {
            is_open = head[2].ends_with(" {") || head[2].ends_with(" (");
            found.push((head[1].to_owned(), head[2].to_owned()));
        } else if is_open {
            is_open = !line.starts_with(['}', ')']);
            let (_, body) = found.last_mut().expect("a head");
            body.push('\n');
            body.push_str(line);
        }
    }
    found
}

/// All texts that hosts get, with their functions.
fn everything() -> Vec<(String, String)> {
    let on_demand = call("");
    let mut all: Vec<(String, String)> = TEXTS.iter().flat_map(|t| functions(t)).collect();
    // Without indentation it has no ends of functions: names only.
    all.extend(
        functions(&on_demand)
            .into_iter()
            .map(|(n, _)| (n, String::new())),
    );
    all
}

#[test]
fn no_function_is_defined_twice() {
    // Which one of these a session has depends on what it finds there.
    let of_choice = "rel_read_exact";
    let mut seen = BTreeSet::new();
    let twice: Vec<String> = everything()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name != of_choice && !seen.insert(name.clone()))
        .collect();
    assert_eq!(twice, Vec::<String>::new());
}

#[test]
fn no_variable_has_the_name_of_a_function() {
    let names: BTreeSet<String> = everything().into_iter().map(|(name, _)| name).collect();
    let assigned = Regex::new(r"(?:^|[\s({;])(rel_[a-z0-9_]+)=").expect("a pattern");
    let mut both = BTreeSet::new();
    for (_, body) in everything() {
        let found = assigned.captures_iter(&body).map(|c| c[1].to_owned());
        both.extend(found.filter(|name| names.contains(name)));
    }
    // Recipes know both.
    assert_eq!(both, BTreeSet::from(["rel_flat".to_owned()]));
}

#[test]
fn every_variable_without_our_prefix_is_local() {
    let assigned = Regex::new(r"(?m)(?:^|[\s({;])([a-z][a-z0-9_]*)=").expect("a pattern");
    let looped = Regex::new(r"\b(?:for|read -r) ([a-z][a-z0-9_]*)\b").expect("a pattern");
    let local = Regex::new(r"\blocal ([^\n]*)").expect("a pattern");
    let name = Regex::new(r"(?:^| )([a-z][a-z0-9_]*)(?:=|\b)").expect("a pattern");
    let text = Regex::new(r#"'[^']*'|"(?:[^"\\]|\\.)*""#).expect("a pattern");
    let mut found = Vec::new();
    for (function, body) in everything() {
        let body = text.replace_all(&body, "''");
        let locals: BTreeSet<String> = local
            .captures_iter(&body)
            .flat_map(|l| {
                let names = name.captures_iter(l.get(1).expect("a list").as_str());
                names.map(|n| n[1].to_owned()).collect::<Vec<_>>()
            })
            .collect();
        let all = assigned
            .captures_iter(&body)
            .chain(looped.captures_iter(&body));
        for one in all.map(|c| c[1].to_owned()) {
            // `rel_next_dir` moves along in the variables of its caller; the others are options.
            let is_known = matches!(
                (function.as_str(), one.as_str()),
                ("rel_next_dir", "at" | "hops" | "rest") | (_, "bs" | "count" | "iflag" | "lstart")
            );
            if !one.starts_with("rel_") && !locals.contains(&one) && !is_known {
                found.push(format!("{function}: {one}"));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

/// A text of a recipe may have any names of its own: it sees none of ours but `rel_…`.
#[test]
fn texts_of_recipes_see_no_local_variables() {
    let look =
        "set | sed -n 's/^\\([a-z][a-z0-9_]*\\)=.*/\\1/p' | grep -v '^rel_' >>\"$D/seen\"; true";
    let calls = [
        // Twice: what is assigned after the first try is seen by the second.
        "rel_wait 5 0.1 \"$look; ls second || ! touch second\"",
        "state; rel_managed \"$look\" \"$look\" '' 5",
        "rel_digest \"$look\" \"$look\" >/dev/null",
        "rel_as \"$(id -un)\" \"$look\"",
        "rel_ask 1 \"$look\"",
        "step 1 \"$look\"",
        "rel_verify() { eval \"$look\"; }; rel_status=0 rel_verifies=1; rel_do_verify",
        "step 1 'rel_rollback_check \"$look\"'; rel_prove_check r 1",
        "step 1 'rel_undo \"$look\"'; back 1",
        "step 1 'rel_scope open true \"$look\"'; rm \"$rel_state/scopes/open\"; rel_enter_again r 1 u/s",
        "step 1 'rel_service s \"$D/log\" \"exec sleep 100\" \"$stop\" \"$look\" 5'; rel_service_stop s",
        "step 1 'rel_service s.1 \"$D/log\" \"exec sleep 100\" \"$stop\" \"\" 5'; rel_retire s. s.2",
    ];
    for call in calls {
        // The environment, `begin.sh` and this test have names as well.
        let script = format!(
            "look={}\nnumber='' suffix='' text='' stop=\"$look; kill \\$rel_pid\"\n\
             eval \"$look\"\nmv seen base\n: >seen\n( {call} ) >/dev/null 2>&1\n\
             sort -u seen | grep -vxFf base\nwc -l <seen",
            quote(look)
        );
        for (shell, out, errors) in run_all(&script) {
            let mut lines: Vec<&str> = out.lines().collect();
            let ran = lines.pop().and_then(|n| n.trim().parse::<usize>().ok());
            assert!(ran > Some(0), "{call} [{shell}]: {errors}");
            assert_eq!(lines, Vec::<&str>::new(), "{call} [{shell}]");
        }
    }
}

/// The list in `lib/undo.sh` is a stored format: each name can be called by programs, in which undo
/// scripts run.
#[test]
fn every_name_of_the_stored_format_can_be_called() {
    let head = STEPS.split_once("# These names").expect("the list").1;
    let list = head.split_once("\nrel_undo_head=").expect("its end").0;
    let name = Regex::new(r"(?m)^#   (rel_[a-z_]+)").expect("a pattern");
    let named: BTreeSet<String> = name.captures_iter(list).map(|c| c[1].to_owned()).collect();
    let program = [COMMON, FOREIGN, STEPS].concat();
    let have: BTreeMap<String, String> = functions(&program).into_iter().collect();
    let missing: Vec<&String> = named.iter().filter(|n| !have.contains_key(*n)).collect();
    assert_eq!(missing, Vec::<&String>::new());
    // What a version of rel has stored once, all later ones have in the list.
    for once in [
        "rel_as",
        "rel_scope_leave",
        "rel_scope_owe",
        "rel_secret_back",
        "rel_service_back",
        "rel_service_go",
        "rel_service_stop",
        "rel_symlink_back",
        "rel_unwrite",
        "rel_write_back",
    ] {
        assert!(named.contains(once), "{once}");
    }
}
