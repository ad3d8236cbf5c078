//! `rel init`: a starting Releasefile, read off the project that is there.

use std::path::Path;

use super::workspace::{RELEASEFILE, Workspace};
use crate::cli::ui;
use crate::core::error::{EXIT_OK, Error, Result};
use crate::core::escape;
use crate::core::fs;

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Print the file instead of writing it
    #[arg(long)]
    print: bool,
}

/// Runs `rel init`.
pub fn init(context: &Workspace, args: &InitArgs) -> Result<u8> {
    let text = releasefile(&context.dir);
    if args.print {
        ui::print(&ui::Text::lines(&text));
        return Ok(EXIT_OK);
    }
    let path = context.dir.join(RELEASEFILE);
    if path.exists() {
        return Err(Error::usage(format!("{RELEASEFILE} exists already"))
            .help("`rel init --print` shows what would be written"));
    }
    fs::write_atomically(&path, text.as_bytes())?;
    ui::print_line(format_args!(
        "wrote {RELEASEFILE}; `rel` shows its targets, `rel build` builds them"
    ));
    Ok(EXIT_OK)
}

/// Returns a Releasefile for the project in `dir`.
fn releasefile(dir: &Path) -> String {
    let name = dir
        .file_name()
        .map_or("project".into(), |n| n.to_string_lossy().into_owned());
    let mut text = format!("project {} {{\n", quoted_literal(&name));
    let version = match (is_tagged(dir), declared_version(dir)) {
        (false, Some(version)) => quoted_literal(&version),
        _ if dir.join(".git").exists() => {
            String::from("(command)\"git describe --tags --always --dirty\"")
        }
        _ => String::from("\"0.1\""),
    };
    text.push_str(&format!("    version {version}\n}}\n"));
    let scripts = npm_scripts(dir);
    let builds = scripts.contains(&"build");
    // What one target writes, another does not read.
    let unless = |is_written: bool| if is_written { " \"!dist/**\"" } else { "" };
    let found: Vec<String> = [
        cargo(dir, unless(builds)),
        python(dir, builds),
        npm(dir, &scripts),
        makefile(dir, unless(builds || python_project(dir).is_some())),
    ]
    .into_iter()
    .flatten()
    .collect();
    match found.is_empty() {
        true => text.push_str(EXAMPLE),
        false => text.push_str(&found.concat()),
    }
    text
}

/// For a directory in which no known kind of project was found.
const EXAMPLE: &str = r#"
// No Cargo.toml, pyproject.toml, setup.py, package.json or Makefile was found: this is an
// example to change.
target "hello" {
    desc "Write a greeting"
    outputs "build/hello.txt"
    run "echo hello > {out}"
}
"#;

/// Returns a text as a KDL string, with escapes for what a terminal would obey.
fn quoted(text: &str) -> String {
    if !text.contains(escape::is_unsafe) {
        return kdl::KdlValue::String(text.to_owned()).to_string();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if escape::is_unsafe(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Returns a text that is no template as a KDL string.
fn quoted_literal(text: &str) -> String {
    let quoted = quoted(&text.replace('{', "{{").replace('}', "}}"));
    // A version is quoted, also where KDL would take it without.
    match quoted.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("\"{quoted}\""),
        false => quoted,
    }
}

/// Returns whether git knows a tag: then that names versions.
fn is_tagged(dir: &Path) -> bool {
    let git = dir.join(".git");
    let packed = fs::read_text(&git.join("packed-refs")).unwrap_or_default();
    let tags = std::fs::read_dir(git.join("refs/tags"));
    packed.contains("refs/tags/") || tags.is_ok_and(|mut tags| tags.next().is_some())
}

/// Returns the version that the files of the project declare, where all that do agree.
fn declared_version(dir: &Path) -> Option<String> {
    let read = |name: &str| fs::read_text(&dir.join(name)).ok();
    let package = || -> Option<String> {
        let package: serde_json::Value = serde_json::from_str(&read("package.json")?).ok()?;
        Some(package.get("version")?.as_str()?.to_owned())
    };
    let found = [
        read("Cargo.toml").and_then(|text| version_in(&text, "[package]")),
        read("pyproject.toml").and_then(|text| version_in(&text, "[project]")),
        package(),
    ];
    let mut found = found.into_iter().flatten();
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Returns the version that a section of a TOML file gives as a plain string.
fn version_in(text: &str, section: &str) -> Option<String> {
    let lines = text.lines().map(str::trim);
    let mut own = lines.skip_while(|line| *line != section).skip(1);
    let value = own
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == "version").then(|| value.trim())
        })?;
    let inner = value.strip_prefix('"')?.split('"').next()?;
    (!inner.is_empty()).then(|| inner.to_owned())
}

fn cargo(dir: &Path, not_dist: &str) -> Option<String> {
    dir.join("Cargo.toml").is_file().then(|| {
        // Without a lock file cargo writes one, which a strict target may do in a copy only.
        let (lock, run) = match dir.join("Cargo.lock").is_file() {
            true => (
                " \"Cargo.lock\"",
                "cargo test --quiet --locked --target-dir $TMPDIR/target",
            ),
            false => (
                "",
                "cp -r . $TMPDIR/src; cd $TMPDIR/src; cargo test --quiet --target-dir $TMPDIR/target",
            ),
        };
        let tests = if dir.join("tests").is_dir() {
            " \"tests/**\""
        } else {
            ""
        };
        format!(
            r#"
// cargo looks at times and keeps what it made in target/. So it begins without that each time,
// and sees only what is declared. `cargo fetch` brings what it depends on. Where this takes too
// long, replace `sandbox` by `cache #false`, and leave out `--target-dir`.
target "cargo-tests-pass" {{
    desc "Unit and integration tests"
    sandbox "strict" {{ read "~/.cargo" "~/.rustup" }}
    inputs "Cargo.toml"{lock} "**/*.rs"{tests} "!target/**"{not_dist}
    inputs "rust-toolchain*" ".cargo/**" optional=#true
    tool "cargo --version"
    env "HOME" "CARGO_HOME" "RUSTUP_HOME" "RUSTFLAGS"
    run "{run}"
}}
"#
        )
    })
}

/// Returns the file that makes a directory a Python project.
fn python_project(dir: &Path) -> Option<&'static str> {
    let mut files = ["pyproject.toml", "setup.py"].into_iter();
    files.find(|f| dir.join(f).is_file())
}

fn python(dir: &Path, builds: bool) -> Option<String> {
    let project = python_project(dir)?;
    // npm's build script has its own mind about dist/; pip goes where it is sent.
    let to = if builds { "build/wheels" } else { "dist" };
    let tests = if dir.join("tests").is_dir() {
        "-s tests"
    } else {
        ""
    };
    // What lies below src/ is found there.
    let path = match dir.join("src").is_dir() {
        true => " PYTHONPATH=\"src\"",
        false => "",
    };
    Some(format!(
        r#"
var "python" "python3"

target "tests-pass" {{
    desc "Unit tests"
    inputs "**/*.py" "{project}" "!**/__pycache__/**" "!build/**" "!dist/**"
    tool "{{python}} --version"
    env PYTHONDONTWRITEBYTECODE="1"{path}
    run "{{python}} -m unittest discover -q {tests}"
}}

// setuptools keeps build/ and *.egg-info, and puts into the wheel what is left there. So the
// wheel is made from a copy of what is declared.
target "wheel" {{
    desc "A wheel of this version"
    needs "tests-pass"
    sandbox "strict"
    inputs "**" "!**/__pycache__/**" "!**/*.egg-info/**" "!.*/**" "!build/**" "!dist/**" "!node_modules/**" "!target/**"
    outputs "{to}/*.whl" count=1
    tool "{{python}} --version"
    run "cp -r . $TMPDIR/src; {{python}} -m pip wheel $TMPDIR/src --no-deps -w {to}"
}}
"#
    ))
}

/// Above the target of a build script.
const NPM_BUILD: &str = "\
// Bundlers keep state of their own (node_modules/.cache), so the result is for this checkout alone.
";

/// Returns the scripts of package.json that become targets.
fn npm_scripts(dir: &Path) -> Vec<&'static str> {
    let text = fs::read_text(&dir.join("package.json")).unwrap_or_default();
    let package: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let mut scripts = vec!["test", "build"];
    scripts.retain(|script| package.get("scripts").and_then(|s| s.get(script)).is_some());
    scripts
}

fn npm(dir: &Path, scripts: &[&str]) -> Option<String> {
    let lock = if dir.join("package-lock.json").is_file() {
        " \"package-lock.json\""
    } else {
        ""
    };
    let mut out = String::new();
    for script in scripts {
        // What a build script writes is not in package.json; dist/ is the custom.
        let (comment, outputs) = match *script == "build" {
            true => (NPM_BUILD, "\n    outputs \"dist/\"\n    cache #false"),
            false => ("", ""),
        };
        out.push_str(&format!(
            r#"
{comment}target "npm-{script}" {{
    desc "npm run {script}"
    inputs "package.json"{lock} "**/*.js" "**/*.ts" "!node_modules/**" "!dist/**" optional=#true{outputs}
    tool "node --version"
    run "npm run {script}"
}}
"#
        ));
    }
    (!out.is_empty()).then_some(out)
}

/// Goals of the Makefile that look like tests or the whole become targets of their own.
fn makefile(dir: &Path, not_dist: &str) -> Option<String> {
    let text = fs::read_text(&dir.join("Makefile")).ok()?;
    let mut out = String::new();
    for goal in ["all", "test", "check"] {
        if text.lines().any(|line| is_rule(line, goal)) {
            out.push_str(&format!(
                r#"
// make decides what is stale inside; declare inputs and outputs here to let rel decide.
target "make-{goal}" {{
    desc "make {goal}"
    inputs "**" "!build/**"{not_dist}
    cache #false
    run "make {goal}"
}}
"#
            ));
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Returns whether a line begins a rule for `goal`; `all := 1` and comments do not.
fn is_rule(line: &str, goal: &str) -> bool {
    let Some((names, rest)) = line.split_once(':').filter(|_| !line.starts_with('\t')) else {
        return false;
    };
    let is_variable = names.contains('=') || rest.trim_start_matches(':').starts_with('=');
    !is_variable && !names.contains('#') && names.split_whitespace().any(|n| n == goal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the project is called, the file is KDL.
    #[test]
    fn the_file_is_kdl() {
        let parent = tempfile::tempdir().expect("a directory");
        for name in [
            "plain",
            "with \"quotes\" and \\",
            "line\nbreak",
            "a\u{1b}[2J\u{9b}\u{202e}",
        ] {
            let dir = parent.path().join(name);
            std::fs::create_dir(&dir).expect("creates");
            for file in ["Cargo.toml", "setup.py"] {
                std::fs::write(dir.join(file), "").expect("writes");
            }
            std::fs::write(dir.join("Makefile"), "all: x\n").expect("writes");
            std::fs::write(dir.join("package.json"), r#"{"scripts":{"test":"x"}}"#)
                .expect("writes");
            let text = releasefile(&dir);
            let document: kdl::KdlDocument = text.parse().expect("is KDL");
            let first = document.nodes()[0].entries()[0].value();
            assert_eq!(first.as_string(), Some(name));
            assert_eq!(text.find(|c| c != '\n' && escape::is_unsafe(c)), None);
            assert_eq!(document.nodes().len(), 1 + 1 + 3 + 1 + 1, "{text}");
        }
    }
}
