//! Releasefiles of which a small text stands for very much.

use super::super::{Space, report};

/// Returns a target with a matrix of `count` by `count` values.
fn square(name: &str, count: usize, value: &str, rest: &str) -> String {
    let values: Vec<String> = (0..count).map(|i| format!("\"{value}{i}\"")).collect();
    let values = values.join(" ");
    format!(
        "target \"{name}\" {{ matrix {{ a {values}; b {values} }}; outputs \"{name}{{a}},{{b}}\"; {rest} }}\n"
    )
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let told = report(text);
    let expected = format!("all targets together have more than {expected}");
    assert!(told.contains(&expected), "{told}");
    assert_eq!(told.matches('×').count(), 1, "{told}");
}

/// They take seconds: `tests/run fast` leaves them out.
mod soak_tests {
    use super::*;

    #[test]
    fn all_targets_together_have_limits() {
        let many: Vec<String> = (0..6)
            .map(|i| square(&format!("t{i}"), 440, "", "run \"x\""))
            .collect();
        check(&many.concat(), "1000000 instances");
        check(
            &square("t", 300, &"v".repeat(2000), "run \"x\""),
            "256 MiB of names",
        );
        let needing =
            square("t", 50, "", "run \"x\"") + &square("u", 50, "", "needs \"t\"; run \"x\"");
        check(&needing, "4000000 needs");
        let long = format!("var \"v\" \"{}\"\n", "v".repeat((1 << 20) - 100));
        let texts = long + &square("t", 17, "", "run \"echo {v} {a} {b}\"");
        check(&texts, "256 MiB of text");
    }
}

#[test]
fn a_target_that_needs_many_is_none_of_these() {
    let text = square("t", 150, "", "run \"x\"") + "target \"all\" { needs \"t\" }\n";
    let loaded = Space::new(&text).load();
    assert!(loaded.is_ok());
}
