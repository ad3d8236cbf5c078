//! Questions and the screen: `--json`, colour, quiet, closed pipes, completions, logs.

use std::process::Stdio;

use insta::assert_snapshot;

use crate::space::{REL, Space};

fn site() -> Space {
    Space::new(
        r#"
project "site" { version "1.2" }
target "page" { desc "The page"; outputs "page.html"; run "echo hello > {out}; echo made {version}"; }
target "check" { needs "page"; run "grep -q hello {page}"; }
host "here" local=#true root="here"
environment "staging" {
    desc "Try it"
    param "branch" one-of="main next" default="main"
    needs "page"
    use "versioned-release" on="here" artifact="{page}" root="{host.root}/{branch}"
}
"#,
    )
}

#[test]
fn every_question_answers_machines() {
    let space = site();
    let _ = space.build([]).ok();
    for question in [
        vec!["list"],
        vec!["status"],
        vec!["why", "page"],
        vec!["hash"],
        vec!["plan", "check"],
        vec!["build", "-n"],
        vec!["log"],
        vec!["check"],
        vec!["cache", "size"],
        vec!["cache", "verify"],
        vec!["cache", "prune", "--older-than", "1d"],
        vec!["plan", "staging"],
    ] {
        let answer = space.ask(question.iter().copied());
        assert!(answer.is_object(), "{question:?}: {answer}");
    }
    assert_snapshot!(format!("{:#}", space.ask(["list"])), @r#"
    {
      "project": "site",
      "targets": [
        {
          "target": "page",
          "desc": "The page",
          "state": "fresh",
          "reasons": []
        },
        {
          "target": "check",
          "desc": null,
          "state": "fresh",
          "reasons": []
        }
      ],
      "environments": [
        {
          "environment": "staging",
          "desc": "Try it",
          "params": [
            {
              "name": "branch",
              "one_of": [
                "main",
                "next"
              ],
              "default": "main",
              "desc": null
            }
          ]
        }
      ]
    }
    "#);
    space.write("page.html", "other\n");
    assert_snapshot!(format!("{:#}", space.ask(["why"])), @r#"
    {
      "targets": [
        {
          "target": "page",
          "desc": "The page",
          "state": "stale",
          "reasons": [
            "output `page.html` was changed  file 8e4c7c1b -> file c0d6c828"
          ]
        },
        {
          "target": "check",
          "desc": null,
          "state": "pending",
          "reasons": [
            "needs `page`, which is not up to date"
          ]
        }
      ]
    }
    "#);
}

#[test]
fn a_hash_is_the_same_before_and_after() {
    let space = site();
    let before = space.run(["hash", "check"]).ok().stdout;
    assert_eq!(before.trim().len(), 64);
    let _ = space.build([]).ok();
    assert_eq!(space.run(["hash", "check"]).ok().stdout, before);
    let text = space
        .read("Releasefile.kdl")
        .replace("echo hello", "echo hallo");
    space.write("Releasefile.kdl", text);
    assert_ne!(space.run(["hash", "check"]).ok().stdout, before);
}

#[test]
fn rel_alone_is_list() {
    let space = site();
    let alone = space.run::<&str>([]).ok();
    assert_eq!(alone.stdout, space.run(["list"]).ok().stdout);
    assert_snapshot!(alone, @"
      stale  page   The page
    pending  check

    environments, each a command of its own:
             rel staging [main|next]  Try it
    ");
}

#[test]
fn colour_is_asked_for_or_not_there() {
    let space = site();
    let color = |args: &[&str], no_color: &str| {
        let mut rel = space.rel(args);
        if !no_color.is_empty() {
            rel.env("NO_COLOR", no_color);
        }
        let output = space.finish(&mut rel);
        let text = output.stdout + &output.stderr;
        text.contains('\u{1b}')
    };
    assert!(!color(&["list"], ""));
    assert!(color(&["--color", "always", "list"], ""));
    assert!(color(&["--color", "always", "list"], "1"));
    assert!(!color(&["--color", "never", "list"], ""));
    assert!(color(&["--color", "always", "build", "nothing"], ""));
    assert!(!color(&["build", "nothing"], "1"));
    assert!(!color(&["--help"], ""));
}

/// Runs `rel` on a terminal, as `script` of util-linux gives one.
fn on_a_terminal(space: &Space, args: &str, no_color: bool) -> String {
    let mut script = space.program("script");
    script.args([
        "-qec",
        &format!("{} {args}", crate::space::REL),
        "/dev/null",
    ]);
    script.env("TERM", "xterm");
    if no_color {
        script.env("NO_COLOR", "1");
    }
    space.finish(&mut script).ok().stdout
}

#[test]
fn a_terminal_gets_colour_unless_it_is_refused() {
    let space = site();
    assert!(on_a_terminal(&space, "list", false).contains("\u{1b}[3"));
    assert!(!on_a_terminal(&space, "list", true).contains("\u{1b}[3"));
    let live = on_a_terminal(&space, "build", false);
    assert!(live.contains("page"), "{live}");
    assert!(live.contains("2 ran"), "{live}");
}

#[test]
fn quiet_says_only_what_went_wrong() {
    let space = site();
    assert_snapshot!(space.run(["-q", "build"]).ok(), @"");
    let space = Space::new("target \"a\" { run \"echo oh no; exit 1\"; }\n");
    assert_snapshot!(space.run(["-q", "build"]).fails(1), @"
    --- stderr
    error: `a` failed: exit status 1
      command  echo oh no; exit 1
      printed  oh no
      key      [KEY]
    --- exit code 1
    ");
}

#[test]
fn verbose_also_says_what_is_fresh() {
    let space = site();
    let _ = space.build([]).ok();
    assert_snapshot!(space.run(["-v", "build"]).ok(), @"
    --- stderr
       fresh page
       fresh check
    rel: nothing to do, 2 targets up to date, in [TIME]
    ");
}

#[test]
fn stats_count_what_was_done() {
    let space = site();
    let output = space.run(["--stats", "build"]).ok();
    let processes = output.stderr.lines().find(|l| l.contains("processes"));
    assert_eq!(processes.map(str::trim), Some("processes  2"), "{output}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let space = Space::new("target \"t\" { matrix { a 1 2 3 4 5 6 7 8 9; b 1 2 3 4 5 6 7 8 9; c 1 2 3 4 5 6 7 8 9; }\n run \"echo {a} {b} {c}\"; }\n".replace(" 1 2 3 4 5 6 7 8 9", " \"1\" \"2\" \"3\" \"4\" \"5\" \"6\" \"7\" \"8\" \"9\"").as_str());
    let script = "set -o pipefail; $REL list | head -1; $REL list | true; $REL --help | true; $REL completions bash | true; $REL why | head -1";
    let mut bash = space.program("bash");
    bash.args(["-euc", script]).env("REL", crate::space::REL);
    assert_snapshot!(space.finish(&mut bash).ok(), @"
    stale  t[1,1,1]
    stale  t[1,1,1]
    ");
    let mut list = space.rel(["list"]);
    list.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = list.spawn().expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn logs_are_replayed() {
    let space = site();
    assert_snapshot!(space.run(["log", "page"]).ok(), @"");
    let _ = space.build([]).ok();
    assert_snapshot!(space.run(["log", "page"]).ok(), @"made 1.2");
    assert_snapshot!(space.run(["log"]).ok(), @"
    page  (took [TIME])
    check  (took [TIME])
    ");
}

#[test]
fn completions_for_each_shell() {
    let space = site();
    for shell in ["bash", "zsh", "fish"] {
        let script = space.run(["completions", shell]).ok().stdout;
        assert!(script.len() > 1000, "{shell}");
        assert!(script.contains("staging"), "{shell}");
        let elsewhere = Space::empty().run(["completions", shell]).ok().stdout;
        assert!(elsewhere.contains("build"), "{shell}");
    }
    let mut bash = space.program("bash");
    let script = space.run(["completions", "bash"]).ok().stdout;
    let _ = space.finish(bash.args(["-n", "-c", &script])).ok();
}

#[test]
fn help_names_the_commands() {
    let space = site();
    let help = space.run(["--help"]).ok().stdout;
    // clap ends some lines with spaces.
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    assert_snapshot!(help.join("\n"), @"
    A make-like release runner: content-hashed targets, parallel builds, SSH recipes

    Usage: rel [OPTIONS] [COMMAND]

    Commands:
      build        Bring targets up to date: only what is stale, in parallel
      list         Show targets and environments, described, fresh or stale
      status       Show what is stale, and why; of an environment: what is live on each host
      why          Explain why targets are stale: what changed, old -> new
      hash         Print the key that CI caches a target under
      plan         Show what would run, changing nothing
      log          Show what a target's last run printed; of an environment: the logs on its hosts
      hosts        Show hosts: how they are reached, whether they answer, system and free disk
      history      Show the runs of an environment that are recorded on its hosts
      attach       Follow the detached steps on an environment's hosts, or end them
      runbook      Write the release procedure of an environment as Markdown
      recipe       Show the recipes that a `use` may name, or what one of them takes and does
      promote      Release to the hosts that were held back
      apply        Carry out a saved plan: exactly that, or nothing
      approve      Approve a saved plan that another user made
      lock         Lock an environment: runs of other users are refused
      unlock       Unlock an environment, or break the lock of another user
      cache        Look at or clean the local cache
      check        Report every error in the Releasefile and recipes
      trust        Trust a checkout or a cache that belongs to another user
      init         Write a starting Releasefile for the project in this directory
      help         Show help for a command, or for a node of the Releasefile
      completions  Print a completion script for a shell

    Options:
      -C, --directory <DIR>
              Work as if started in DIR

      -f, --file <FILE>
              Read this file instead of the nearest Releasefile.kdl

          --hosts <FILE>
              Take hosts and groups from FILE as well; they replace those of the same name

          --var <NAME=VALUE>
              Set a variable of the Releasefile

          --color <WHEN>
              Colour: `NO_COLOR` is honoured

              Possible values:
              - auto:   When standard error is a terminal and `NO_COLOR` is not set
              - always: Always
              - never:  Never

              [default: auto]

      -q, --quiet
              Print errors only

      -v, --verbose...
              Also print what is up to date; -vv: programs, queries and replies; -vvv: frames

          --json
              Answer as JSON on standard output

          --stats
              Print statistics at the end: files checked, bytes read, commands run

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Each environment of the Releasefile is a command too: `rel list` shows them.
    ");
    assert_snapshot!(space.run(["--version"]).ok(), @"rel 0.1.0");
    assert_snapshot!(space.run(["staging", "--help"]).ok(), @"
    Try it

    Usage: rel staging [OPTIONS] [branch]

    Arguments:
      [branch]
              [default: main]
              [possible values: main, next]

    Options:
          --plan
              Show what would happen, host by host, step by step, changing nothing

          --plan-out <FILE>
              Save the plan, for `rel approve` and `rel apply`

          --rollback
              Go back to what was live before the last run

          --except <USE>
              Go back without what this use did, which stays as it is; repeatable

          --remove-orphans
              End services of uses that are not in the Releasefile any more, and do nothing else

          --abandon <SCOPE>
              Give up a scope that cannot be left, and do nothing else; with `--reason`

          --override <GUARD>
              Go on although this guard says no, or this step's rollback would not work; with `--reason`

          --reason <TEXT>
              Why; kept in the journals of the hosts that are changed

          --confirm <ENVIRONMENT>
              Do the steps that destroy something without asking; the environment's name again

      -j, --jobs <N>
              Run N jobs at once [default: one for each core]

      -k, --keep-going
              Go on with what does not need a failed target

          --force
              Run the named targets even if they are fresh

          --no-cache
              Neither look into the local cache nor write to it

          --trace <FILE>
              Write when what ran into FILE, for Perfetto or `about:tracing`

      -h, --help
              Print help
    ");
}

/// A chain of thousands is asked about in seconds: what each needs in the end is not
/// gathered anew for every target.
#[test]
fn a_hash_of_a_long_chain_takes_no_time() {
    let mut text = String::from("target \"t0\" { inputs \"a.txt\"; outputs \"o/0\"; run \"x\" }\n");
    for i in 1..8_000 {
        let before = i - 1;
        text += &format!(
            "target \"t{i}\" {{ needs \"t{before}\"; inputs \"o/{before}\" \"a.txt\"; outputs \"o/{i}\"; run \"x\" }}\n"
        );
    }
    let space = Space::new(&text);
    space.write("a.txt", "a");
    // Seconds of processor time, which no neighbour takes away.
    let mut limited = space.program("sh");
    limited.args(["-c", "ulimit -t 20; exec \"$0\" hash t7999", REL]);
    let before = space.finish(&mut limited).ok().stdout;
    // What a target makes is no source; what no target makes is.
    space.write("o/7", "made");
    assert_eq!(space.run(["hash", "t7999"]).ok().stdout, before);
    space.write("a.txt", "b");
    assert_ne!(space.run(["hash", "t7999"]).ok().stdout, before);
}

#[test]
fn an_answer_that_could_not_be_written_is_no_success() {
    let space = Space::new("target \"a\" { run \"true\" }\n");
    for args in [&["list"][..], &["hash", "a"], &["--json", "status"]] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut rel = space.rel(args);
        let output = rel.stdout(full.expect("opens")).stderr(Stdio::piped());
        let output = output.output().expect("runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let told = "error: cannot write to standard output\n  says  no space left on device\n";
        assert_eq!(said, told);
    }
    // Whoever has read enough closes the pipe.
    let piped = space
        .program("sh")
        .args(["-c", "$REL list; echo $? >code"])
        .env("REL", REL)
        .stdout(Stdio::piped())
        .spawn();
    let mut piped = piped.expect("starts");
    drop(piped.stdout.take());
    let _ = piped.wait().expect("ends");
    assert_eq!(space.read("code"), "0\n");
}

#[test]
fn a_hash_takes_a_link_to_what_is_made_by_its_text() {
    let space = Space::new(
        r#"
target "a" { inputs "in"; outputs "out/x"; run "cp in {out}"; }
target "b" { inputs "latest" "again" "there"; needs "a"; run "cat latest again"; }
"#,
    );
    space.write("in", "1\n").write("source", "1\n");
    space.shell("ln -s out/x latest; ln -s latest again; ln -s source there");
    let hash = || space.run(["hash", "b"]).ok().stdout;
    let before = hash();
    let _ = space.build([]).ok();
    assert_eq!(hash(), before);
    space.write("source", "2\n");
    let other = hash();
    assert_ne!(other, before, "a source behind a link counts");
    space.shell("ln -sf ./out/x latest");
    assert_ne!(hash(), other, "and so does the text");
}

#[test]
fn a_directory_is_entered_as_a_shell_enters_it() {
    let space = Space::empty();
    for place in ["A", "B/sub", "real"] {
        space.write(format!("{place}/x"), "");
    }
    space.write("A/Releasefile.kdl", "target \"in-a\" { run \"true\"; }\n");
    space.write(
        "real/Releasefile.kdl",
        "target \"real\" { run \"true\"; }\n",
    );
    space.shell("mkdir real/sub; ln -s real/sub link");
    for (here, dir) in [("A", ".."), ("A", "../B"), ("A", "../B/sub")] {
        let mut rel = space.rel(["-C", dir, "list"]);
        let output = space.finish(rel.current_dir(space.path(here)));
        assert!(!output.stdout.contains("in-a"), "{dir}: {output}");
        assert_eq!(output.code, 2, "{dir}: {output}");
    }
    assert!(
        space
            .run(["-C", "link", "list"])
            .ok()
            .stdout
            .contains("real")
    );
}

#[test]
fn an_empty_variable_names_no_cache() {
    let space = Space::new("target \"a\" { outputs \"o\"; run \"echo a > {out}\"; }\n");
    let mut rel = space.rel(["build"]);
    let output = space.finish(rel.env("REL_CACHE_DIR", ""));
    assert_eq!(output.code, 0, "{output}");
    assert!(!space.has("v1"), "{output}");
    assert!(space.base().join("home/.cache/rel/v1").is_dir());
}
