//! Names with ranges and lists: `px[1-8]-ops`, `ddi[1,2].cmc`, `rack[a,b]-[01-12]`.
//!
//! Pure text. A number keeps the leading zeros it is written with.

/// Names that one text may stand for.
const NAMES_MAX: usize = 4096;

/// Why a text is not a name with ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub help: Option<String>,
}

fn bad(message: impl Into<String>) -> BadRange {
    BadRange {
        message: message.into(),
        help: None,
    }
}

/// Returns the names that `text` stands for, in order.
pub fn expand(text: &str) -> Result<Vec<String>, BadRange> {
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find(['[', ']']) {
        if rest[open..].starts_with(']') {
            return Err(bad(format!("`{text}` has a `]` without its `[`")));
        }
        let Some(len) = rest[open..].find(']') else {
            return Err(bad(format!("`{text}` has a `[` without its `]`")));
        };
        let choices = choices(&rest[open + 1..open + len])?;
        if names.len() * choices.len() > NAMES_MAX {
            return Err(bad(format!(
                "`{text}` stands for more than {NAMES_MAX} names"
            )));
        }
        let before = &rest[..open];
        names = names
            .iter()
            .flat_map(|n| choices.iter().map(move |c| format!("{n}{before}{c}")))
            .collect();
        rest = &rest[open + len + 1..];
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

fn choices(inside: &str) -> Result<Vec<String>, BadRange> {
    let mut out = Vec::new();
    let parts: Vec<&str> = inside.split(',').map(str::trim).collect();
    for part in &parts {
        match part.split_once('-') {
            Some((from, to)) if is_digits(from) && is_digits(to) => {
                out.extend(numbers(from, to)?);
            }
            Some(_) => {
                return Err(bad(format!("`[{inside}]` is not a range of numbers")));
            }
            None if part.is_empty() => {
                return Err(bad(format!("`[{inside}]` has an empty item")));
            }
            None => out.push((*part).to_owned()),
        }
    }
    if let [only] = parts.as_slice()
        && !only.contains('-')
    {
        return Err(BadRange {
            message: format!("`[{inside}]` is neither a range nor a list"),
            help: single(only),
        });
    }
    Ok(out)
}

/// `[5678]` is read by some tools as a class of characters; here it is most likely a list.
fn single(only: &str) -> Option<String> {
    if !is_digits(only) || only.len() < 2 {
        return None;
    }
    let digits: Vec<String> = only.chars().map(String::from).collect();
    Some(format!("did you mean `[{}]`?", digits.join(",")))
}

fn numbers(from: &str, to: &str) -> Result<Vec<String>, BadRange> {
    let too_large = |_| bad(format!("`[{from}-{to}]` has a number that is too large"));
    let first: u64 = from.parse().map_err(too_large)?;
    let last: u64 = to.parse().map_err(too_large)?;
    if first > last {
        return Err(BadRange {
            message: format!("`[{from}-{to}]` is in descending order"),
            help: Some(format!("did you mean `[{to}-{from}]`?")),
        });
    }
    if last - first >= NAMES_MAX as u64 {
        return Err(bad(format!(
            "`[{from}-{to}]` stands for more than {NAMES_MAX} names"
        )));
    }
    // `01-12` is as wide as it is written; `8-12` and `0-12` are not padded.
    let is_padded = |number: &str| number.len() > 1 && number.starts_with('0');
    let width = match is_padded(from) || is_padded(to) {
        true => from.len().max(to.len()),
        false => 0,
    };
    Ok((first..=last).map(|n| format!("{n:0width$}")).collect())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match expand(text) {
            Ok(names) => names.join(" "),
            Err(e) => [e.message, e.help.unwrap_or_default()].join(" | "),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn names_are_expanded() {
        check("karl04", "karl04");
        check("px[1-3]-ops", "px1-ops px2-ops px3-ops");
        check("ddi[1,2].cmc", "ddi1.cmc ddi2.cmc");
        check("px[08-11]", "px08 px09 px10 px11");
        check("px[8-11]", "px8 px9 px10 px11");
        check("px[0-10]", "px0 px1 px2 px3 px4 px5 px6 px7 px8 px9 px10");
        check("px[0-02]", "px00 px01 px02");
        check("[a,b][1-2]", "a1 a2 b1 b2");
        check("x[1-2,7,0a]", "x1 x2 x7 x0a");
    }

    #[test]
    fn mistakes_say_what_was_meant() {
        check(
            "px[5678]",
            "`[5678]` is neither a range nor a list | did you mean `[5,6,7,8]`?",
        );
        check(
            "px[8-1]",
            "`[8-1]` is in descending order | did you mean `[1-8]`?",
        );
        check("px[1-8", "`px[1-8` has a `[` without its `]` | ");
        check("px1-8]", "`px1-8]` has a `]` without its `[` | ");
        check("px[1,,2]", "`[1,,2]` has an empty item | ");
        check("px[a-c]", "`[a-c]` is not a range of numbers | ");
        check(
            "px[1-99999]",
            "`[1-99999]` stands for more than 4096 names | ",
        );
    }

    proptest! {
        #[test]
        fn a_range_has_as_many_names_as_numbers(from in 0u64..500, count in 1u64..500, wide in any::<bool>()) {
            let last = from + count - 1;
            let text = if wide { format!("h[{from:04}-{last:04}].x") } else { format!("h[{from}-{last}].x") };
            let names = expand(&text).expect("expands");
            prop_assert_eq!(names.len() as u64, count);
            let number = |n: &String| n[1..n.len() - 2].parse::<u64>().expect("a number");
            prop_assert_eq!(names.iter().map(number).collect::<Vec<_>>(), (from..=last).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "[a-z0-9,\\[\\]-]{0,12}") {
            let _ = expand(&text);
        }
    }
}
