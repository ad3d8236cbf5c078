//! `init`: the Releasefile it writes for each kind of project is sound, and builds.

use insta::assert_snapshot;

use crate::space::Space;

/// Writes a Releasefile for the project in a space and checks it.
#[track_caller]
fn init(space: &Space) -> String {
    let _ = space.run(["init"]).ok();
    let output = space.run(["check"]).ok();
    assert_eq!(output.stderr, "", "not even a warning");
    space.read("Releasefile.kdl")
}

#[test]
fn nothing_known() {
    let space = Space::empty();
    assert_snapshot!(init(&space), @r#"
    project work {
        version "0.1"
    }

    // No Cargo.toml, pyproject.toml, setup.py, package.json or Makefile was found: this is an
    // example to change.
    target "hello" {
        desc "Write a greeting"
        outputs "build/hello.txt"
        run "echo hello > {out}"
    }
    "#);
    space.build([]).ok().is("hello ran");
    assert_snapshot!(space.run(["init"]).fails(2), @"
    --- stderr
    error: Releasefile.kdl exists already
      help: `rel init --print` shows what would be written
    --- exit code 2
    ");
}

#[test]
fn cargo() {
    let space = Space::empty();
    space
        .write(
            "Cargo.toml",
            "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\n",
        )
        .write("src/main.rs", "fn main() {}\n");
    assert_snapshot!(init(&space), @r#"
    project work {
        version "0.1.0"
    }

    // cargo looks at times and keeps what it made in target/. So it begins without that each time,
    // and sees only what is declared. `cargo fetch` brings what it depends on. Where this takes too
    // long, replace `sandbox` by `cache #false`, and leave out `--target-dir`.
    target "cargo-tests-pass" {
        desc "Unit and integration tests"
        sandbox "strict" { read "~/.cargo" "~/.rustup" }
        inputs "Cargo.toml" "**/*.rs" "!target/**"
        inputs "rust-toolchain*" ".cargo/**" optional=#true
        tool "cargo --version"
        env "HOME" "CARGO_HOME" "RUSTUP_HOME" "RUSTFLAGS"
        run "cp -r . $TMPDIR/src; cd $TMPDIR/src; cargo test --quiet --target-dir $TMPDIR/target"
    }
    "#);
    space.remove("Releasefile.kdl").write("Cargo.lock", "");
    let text = init(&space);
    assert!(
        text.contains("test --quiet --locked --target-dir $TMPDIR/target\""),
        "{text}"
    );
}

#[test]
fn python() {
    let space = Space::empty();
    space
        .write("setup.py", "from setuptools import setup\nsetup(name='tiny', version='0.1', py_modules=['tiny'])\n")
        .write("tiny.py", "def double(x):\n    return 2 * x\n")
        .write("tests/test_tiny.py", "import unittest\nfrom tiny import double\n\nclass Test(unittest.TestCase):\n    def test_double(self):\n        self.assertEqual(double(2), 4)\n");
    assert_snapshot!(init(&space), @r#"
    project work {
        version "0.1"
    }

    var "python" "python3"

    target "tests-pass" {
        desc "Unit tests"
        inputs "**/*.py" "setup.py" "!**/__pycache__/**" "!build/**" "!dist/**"
        tool "{python} --version"
        env PYTHONDONTWRITEBYTECODE="1"
        run "{python} -m unittest discover -q -s tests"
    }

    // setuptools keeps build/ and *.egg-info, and puts into the wheel what is left there. So the
    // wheel is made from a copy of what is declared.
    target "wheel" {
        desc "A wheel of this version"
        needs "tests-pass"
        sandbox "strict"
        inputs "**" "!**/__pycache__/**" "!**/*.egg-info/**" "!.*/**" "!build/**" "!dist/**" "!node_modules/**" "!target/**"
        outputs "dist/*.whl" count=1
        tool "{python} --version"
        run "cp -r . $TMPDIR/src; {python} -m pip wheel $TMPDIR/src --no-deps -w dist"
    }
    "#);
    let _ = space.build(["tests-pass"]).ok();
    space.build(["tests-pass"]).ok().is("tests-pass fresh");
    space.write("tiny.py", "def double(x):\n    return 3 * x\n");
    let failed = space.run(["build", "tests-pass"]).fails(1);
    assert!(failed.stderr.contains("AssertionError: 6 != 4"), "{failed}");
}

#[test]
fn npm() {
    let space = Space::empty();
    space
        .write(
            "package.json",
            r#"{"name": "tiny", "scripts": {"test": "true", "build": "mkdir -p dist"}}"#,
        )
        .write("index.js", "module.exports = 1;\n");
    assert_snapshot!(init(&space), @r#"
    project work {
        version "0.1"
    }

    target "npm-test" {
        desc "npm run test"
        inputs "package.json" "**/*.js" "**/*.ts" "!node_modules/**" "!dist/**" optional=#true
        tool "node --version"
        run "npm run test"
    }

    // Bundlers keep state of their own (node_modules/.cache), so the result is for this checkout alone.
    target "npm-build" {
        desc "npm run build"
        inputs "package.json" "**/*.js" "**/*.ts" "!node_modules/**" "!dist/**" optional=#true
        outputs "dist/"
        cache #false
        tool "node --version"
        run "npm run build"
    }
    "#);
}

#[test]
fn every_mixture_of_projects_is_sound() {
    let kinds = [
        ("Cargo.toml", "[package]\nname = \"x\"\n"),
        ("pyproject.toml", ""),
        (
            "package.json",
            r#"{"scripts": {"test": "true", "build": "mkdir -p dist"}}"#,
        ),
        ("Makefile", "all: x\ntest:\n\ttrue\n"),
    ];
    for mixture in 1..1 << kinds.len() {
        let space = Space::empty();
        space.write("a.py", "").write("a.rs", "").write("a.js", "");
        for (i, (file, text)) in kinds.iter().enumerate() {
            if mixture & (1 << i) != 0 {
                space.write(file, text);
            }
        }
        init(&space);
    }
}

#[test]
fn a_directory_with_braces_in_its_name() {
    let space = Space::empty();
    space.write("a{b}c/Makefile", "all:\n\ttrue\n");
    let _ = space.run(["-C", "a{b}c", "init"]).ok();
    let listed = space.run(["-C", "a{b}c", "list"]).ok();
    assert!(listed.stdout.contains("make-all"), "{listed}");
}

#[test]
fn a_variable_is_no_goal() {
    let space = Space::empty();
    space.write(
        "Makefile",
        "all := 1\ntest ::= 2\nall = a:b\n# check: not yet\nother:\n\techo all: none\n",
    );
    assert!(!init(&space).contains("target \"make-"));
    space
        .remove("Releasefile.kdl")
        .write("Makefile", "x all:: y\n");
    assert!(init(&space).contains("target \"make-all\""));
}

#[test]
fn the_version_and_the_layout_of_a_python_project_are_seen() {
    let space = Space::empty();
    space
        .write("pyproject.toml", "[build-system]\nrequires = [\"setuptools\"]\n\n[project]\nname = \"tiny\"\nversion = \"1.20\" # next\n")
        .write("src/tiny.py", "def double(x):\n    return 2 * x\n")
        .write("tests/test_tiny.py", "import unittest\nfrom tiny import double\n\nclass Test(unittest.TestCase):\n    def test_double(self):\n        self.assertEqual(double(2), 4)\n");
    let text = init(&space);
    assert!(text.contains("    version \"1.20\"\n"), "{text}");
    let _ = space.build(["tests-pass"]).ok();
    // A tag names versions; without one git has only numbers.
    for (script, expected) in [
        (
            "git init -q && git add . && git commit -qm one",
            "version \"1.20\"",
        ),
        ("git tag v1", "version (command)\"git describe"),
        ("git pack-refs --all", "version (command)\"git describe"),
    ] {
        space.shell(&format!("rm Releasefile.kdl; {script}"));
        let text = init(&space);
        assert!(text.contains(expected), "{text}");
    }
}

/// It needs make.
mod host_tests {
    use super::*;

    #[test]
    fn makefile() {
        let space = Space::empty();
        space.write(
            "Makefile",
            "all: out\nout: in\n\tcp in out\ncheck:\n\tgrep -q in in\n",
        );
        space.write("in", "in\n");
        assert_snapshot!(init(&space), @r#"
        project work {
            version "0.1"
        }

        // make decides what is stale inside; declare inputs and outputs here to let rel decide.
        target "make-all" {
            desc "make all"
            inputs "**" "!build/**"
            cache #false
            run "make all"
        }

        // make decides what is stale inside; declare inputs and outputs here to let rel decide.
        target "make-check" {
            desc "make check"
            inputs "**" "!build/**"
            cache #false
            run "make check"
        }
        "#);
        let _ = space.build([]).ok();
        assert_eq!(space.read("out"), "in\n");
    }
}
