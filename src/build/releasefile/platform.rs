//! `platform`: what the result of a target is for.
//!
//! Two words for one platform would be two keys for one result, so the words are those that
//! the key has for the machine itself.

use super::node::{Diagnostics, Node};
use super::scope::NameScope;
use crate::core::diagnostics::{Diagnostic, suggest};

/// Operating systems, as Rust names them.
const SYSTEMS: [&str; 12] = [
    "linux",
    "macos",
    "windows",
    "freebsd",
    "netbsd",
    "openbsd",
    "dragonfly",
    "illumos",
    "solaris",
    "android",
    "ios",
    "wasi",
];

/// Processors, as Rust names them.
const PROCESSORS: [&str; 12] = [
    "x86_64",
    "aarch64",
    "x86",
    "arm",
    "riscv64",
    "riscv32",
    "powerpc64",
    "powerpc",
    "s390x",
    "loongarch64",
    "mips64",
    "wasm32",
];

/// What other tools say.
const ALIASES: [(&str, &str); 7] = [
    ("amd64", "x86_64"),
    ("x64", "x86_64"),
    ("arm64", "aarch64"),
    ("i686", "x86"),
    ("i386", "x86"),
    ("ppc64le", "powerpc64"),
    ("darwin", "macos"),
];

/// Returns the platform that a node names.
pub(crate) fn platform(node: &Node, scope: &NameScope, found: &mut Diagnostics) -> Option<String> {
    let text = node.only_text("`\"any\"`, or what it is for: `\"linux-aarch64\"`", found)?;
    let value = scope.string(&text, found)?;
    if value == "any" {
        return Some(value);
    }
    let known = value
        .split_once('-')
        .filter(|(system, processor)| SYSTEMS.contains(system) && PROCESSORS.contains(processor));
    if known.is_some() {
        return Some(value);
    }
    let message = format!("there is no platform `{value}`");
    let mistake = Diagnostic::new("unknown_platform", text.place, message, "not known");
    let (system, processor) = value.split_once('-').unwrap_or((&value, ""));
    let word = |word: &str| {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == word);
        alias.map_or_else(|| word.to_owned(), |(_, name)| (*name).to_owned())
    };
    let meant = format!("{}-{}", word(system), word(processor));
    let names = SYSTEMS.map(|s| PROCESSORS.map(|p| format!("{s}-{p}")));
    let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    let near = match names.contains(&meant.as_str()) {
        true => Some(meant.as_str()),
        false => suggest(&meant, names.into_iter().chain(["any"])),
    };
    found.push(mistake.help(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write `any`, or system and processor, such as `linux-aarch64`".into(),
    }));
    None
}
