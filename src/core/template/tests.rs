//! Tests of templates: what a name becomes, and that a shell never takes a value for syntax.

use super::*;
use proptest::prelude::*;

fn scope(name: &str) -> Option<Value> {
    Some(match name {
        "x" => Value::One("a b'$(c)".into()),
        "list" => Value::Many(vec!["one 1".into(), "two".into()]),
        "none" => Value::Many(vec![]),
        _ => return None,
    })
}

#[track_caller]
fn check(text: &str, mode: Mode, expected: &str) {
    let found = Template::parse(text, mode).and_then(|t| t.render(&scope));
    let found = match found {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn plain_text_is_not_quoted() {
    check("p/{x}/q", Mode::Plain, "p/a b'$(c)/q");
    check("{{x}} }", Mode::Plain, "{x} }");
    check("{", Mode::Plain, "error: `{` is never closed");
    check(
        "{print $1}",
        Mode::Plain,
        "error: `{print $1}` is not a name",
    );
    check("{y}", Mode::Plain, "error: `{y}` is not known here");
    check(
        "{list}.x",
        Mode::Plain,
        "error: `{list}` has 2 values, but stands where one word must be",
    );
}

#[test]
fn shell_text_is_quoted_for_its_context() {
    check("echo {x}", Mode::Shell, r"echo 'a b'\''$(c)'");
    check("echo \"{x}\"", Mode::Shell, r#"echo "a b'\$(c)""#);
    check("echo '{x}'", Mode::Shell, r"echo 'a b'\''$(c)'");
    check(
        "echo \"$(cat {x})\"",
        Mode::Shell,
        r#"echo "$(cat 'a b'\''$(c)')""#,
    );
    check("cat {list} {none}", Mode::Shell, "cat 'one 1' 'two' ");
    check(
        "awk '{{print $1}}' \\\" {x}",
        Mode::Shell,
        r#"awk '{print $1}' \" 'a b'\''$(c)'"#,
    );
}

#[test]
fn a_path_that_begins_a_word_is_no_option() {
    let scope = |name: &str| {
        Some(match name {
            "path" => Value::Path("-n".into()),
            "plain" => Value::Path("a-n".into()),
            "text" => Value::One("-n".into()),
            "none" => Value::One("".into()),
            _ => return None,
        })
    };
    for (text, mode, expected) in [
        ("{path}", Mode::Plain, "./-n"),
        ("{path}.gz", Mode::Plain, "./-n.gz"),
        ("--in={path}", Mode::Plain, "--in=-n"),
        ("a b {path}", Mode::Plain, "a b -n"),
        ("'{path}", Mode::Plain, "'-n"),
        ("{plain}", Mode::Plain, "a-n"),
        ("{text}", Mode::Plain, "-n"),
        ("{none}{path}", Mode::Plain, "./-n"),
        ("{text}{path}", Mode::Plain, "-n-n"),
        ("cat {path}", Mode::Shell, "cat './-n'"),
        ("cat \"{path}\"", Mode::Shell, "cat \"./-n\""),
        ("cat '{path}.gz'", Mode::Shell, "cat './-n.gz'"),
        ("cat \"\"{path}", Mode::Shell, "cat \"\"'./-n'"),
        ("cat {none}{path}", Mode::Shell, "cat '''./-n'"),
        ("cat \\\n{path}", Mode::Shell, "cat \\\n'./-n'"),
        ("cat \"'{path}\"", Mode::Shell, "cat \"'-n\""),
        ("cat x{path} \"x{path}\"", Mode::Shell, "cat x'-n' \"x-n\""),
        ("cat \"x y {path}\"", Mode::Shell, "cat \"x y -n\""),
        ("a;{path}", Mode::Shell, "a;'./-n'"),
        ("a >{path}", Mode::Shell, "a >'./-n'"),
        ("a $({path})", Mode::Shell, "a $('./-n')"),
        ("X={path} a", Mode::Shell, "X='-n' a"),
        ("a\\ {path}", Mode::Shell, "a\\ '-n'"),
    ] {
        let template = Template::parse(text, mode).expect("is a template");
        let found = template.render(&scope).expect("renders");
        assert_eq!(found.to_string_lossy(), expected, "{text}");
        let bound = template.bind(&scope).and_then(|t| t.render(&|_| None));
        assert_eq!(bound.expect("binds").to_string_lossy(), expected, "{text}");
    }
}

#[test]
fn placeholders_are_refused_where_no_quoting_is_safe() {
    for (text, place) in [
        ("echo `cat {x}`", "back-quotes"),
        ("echo \"`cat {x}`\"", "back-quotes"),
        ("echo ${{A:-{x}}}", "`${…}`"),
        ("echo $((1+{x}))", "`$((…))`"),
        ("true # {x}", "a comment"),
        ("cat <<E\n{x}\nE", "a here-document"),
        ("echo ${x}", "a word after a dollar sign"),
        ("echo \\{x}", "a word after a backslash"),
    ] {
        let found = Template::parse(text, Mode::Shell).map(|_| ());
        assert_eq!(
            found,
            Err(TemplateError::Unquotable("x".into(), place)),
            "{text}"
        );
    }
    check("echo a#{x}", Mode::Shell, r"echo a#'a b'\''$(c)'");
    // A blank that is none for a shell begins no comment.
    check(
        "echo a\u{a0}#{x}",
        Mode::Shell,
        "echo a\u{a0}#'a b'\\''$(c)'",
    );
    check("echo \"$$({x})\"", Mode::Shell, r#"echo "$$(a b'\$(c))""#);
    check(
        "case x in x) echo $(echo {x});; esac",
        Mode::Shell,
        r"case x in x) echo $(echo 'a b'\''$(c)');; esac",
    );
}

#[test]
fn early_names_are_bound_and_late_ones_kept() {
    let template = Template::parse("cp {x} {out}", Mode::Shell).expect("parses");
    let bound = template.bind(&scope).expect("binds");
    assert_eq!(bound.names().collect::<Vec<_>>(), ["out"]);
    let late = |_: &str| Some(Value::from("o"));
    assert_eq!(
        bound.render(&late).expect("renders"),
        r"cp 'a b'\''$(c)' 'o'"
    );
}

/// Returns what the shells that are there print; none may have run a part of the value.
fn printed(script: &OsStr) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    for shell in ["sh", "bash"] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = std::process::Command::new(shell);
        command.arg("-c").arg(script).current_dir(dir.path());
        let Ok(output) = command.stdin(std::process::Stdio::null()).output() else {
            assert_ne!(shell, "sh", "every machine has `sh`");
            continue;
        };
        assert!(!dir.path().join("PWN").exists(), "{shell}: {script:?}");
        out.push((shell, String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    out
}

/// Values that leave a mark where a shell reads them as syntax.
const HOSTILE: [&str; 8] = [
    "x; :>PWN",
    "$(:>PWN)",
    "`:>PWN`",
    "'; :>PWN; '",
    "\"; :>PWN; \"",
    "\n:>PWN\n",
    "a[$(:>PWN)]",
    "); :>PWN; (",
];

/// Parts of shell text in which quotes and parentheses are easily miscounted.
const PARTS: [&str; 30] = [
    "{v}",
    "{v}",
    "{v}",
    "$(",
    "$((",
    "(",
    "((",
    ")",
    "))",
    "'",
    "\"",
    "`",
    "$",
    "$'",
    "${{X:-",
    "}}",
    "\\",
    "\\\n",
    "#",
    " #",
    "\n",
    " ",
    "; ",
    "case x in x)",
    " esac",
    "echo ",
    "\u{a0}",
    "$[",
    "]",
    "<<",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the value and the context, the shell sees exactly the value.
    #[test]
    fn a_value_never_becomes_syntax(value in "[^\0]{0,24}", which in 0usize..13) {
        let (text, expected) = [
            ("printf %s {v}", "V"),
            ("printf %s \"{v}\"", "V"),
            ("printf %s '{v}'", "V"),
            ("printf %s \"$(printf %s {v}; echo x)\"", "Vx"),
            ("(printf %s x{v})", "xV"),
            ("printf %s \u{a0}#{v}", "\u{a0}#V"),
            ("printf %s \"$(case x in x) printf %s {v};; esac)\"", "refused"),
            ("printf %s \"${{X:-'}}\" {v} '", "refused"),
            ("printf %s $'\\'' {v} '", "refused"),
            ("printf %s $((echo a); echo ') {v}')", "refused"),
            ("printf %s \"\\{v}\"", "refused"),
            ("case x in x) printf %s $(( (1 + 1) ))\"{v}\";; esac", "2V"),
            ("printf %s a\\\n#{v}", "a#V"),
        ][which];
        let template = Template::parse(text, Mode::Shell);
        prop_assert_eq!(template.is_err(), expected == "refused", "{}", text);
        if let Ok(template) = template {
            let script = template.render(&|_| Some(Value::One(value.clone().into())));
            for (shell, printed) in printed(&script.expect("renders")) {
                prop_assert_eq!(printed, expected.replace('V', &value), "{}: {}", shell, text);
            }
        }
    }

    /// Whatever the text, however broken: it is refused, or no part of the value runs.
    #[test]
    fn no_text_runs_a_value(parts in proptest::collection::vec(0..PARTS.len(), 1..14), which in 0..HOSTILE.len()) {
        let text: String = parts.iter().map(|p| PARTS[*p]).chain(["{v}"]).collect();
        let bare: String = text.chars().filter(|c| !c.is_whitespace() && *c != '\\').collect();
        // `echo () (echo)` would call itself for ever.
        if let (false, Ok(template)) = (bare.contains("()"), Template::parse(&text, Mode::Shell)) {
            let script = template.render(&|_| Some(HOSTILE[which].into()));
            printed(&script.expect("renders"));
        }
    }
}
