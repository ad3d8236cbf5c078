//! The action key: one digest over everything that may change a target's result.
//!
//! | Value                          | In the key | Why                                          |
//! |--------------------------------|------------|----------------------------------------------|
//! | format version                 | yes        | another `rel` makes other results            |
//! | platform, declared or this one | yes        | so does another machine, unless declared       |
//! | commands after interpolation   | yes        | they are the action                          |
//! | directory, shell               | yes        | the same words mean something else there     |
//! | declared environment           | yes        | name and value; unset differs from empty     |
//! | output of each tool and probe  | yes        | that is what they are declared for           |
//! | inputs: path, kind, content    | yes        | sorted by path, so listing order is free     |
//! | outputs of needed targets      | yes        | their *contents*, not keys: early cutoff     |
//! | what links among those lead to | yes        | a read of the link reads that                |
//! | output patterns, product       | yes        | a moved output is another result             |
//! | `expect`, `reject`             | yes        | they decide what counts as success           |
//! | `sandbox "strict"`             | yes        | its results are proven, others are believed  |
//! | `cache "here"`, `"anywhere"`   | yes        | others' results may name another checkout    |
//! | path of the depfile            | yes        | a run without one found nothing out          |
//! | what a depfile named           | no, beside | known only when it has run: see [`DiscoveredInput`]    |
//! | path of the checkout           | no, beside | where a result names it: see [`DiscoveredInput`]       |
//! | target's name, description     | no         | a renamed target made the same bytes         |
//! | timeout, retries, pool         | no         | they do not change what a success made       |
//! | what else a sandbox may read   | no         | where tools are on a machine, like `PATH`    |
//! | mtime, host name, user, `PATH` | no         | another machine would never hit              |
//!
//! The fields are written once, by [`write_key`], for two readers: [`HashKey`] makes the
//! digest and [`ExplainKey`] the text of `rel why`, so that the two cannot drift.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::build::digest::{Content, ContentKind, Digest, shown_size};
use crate::build::graph::Target;
use crate::core::fs::{RepoPath, shown};

/// Version of what enters a key; raised when [`write_key`] changes.
const KEY_VERSION: &str = "2";

/// The digest over one action.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ActionKey(pub [u8; 32]);

impl ActionKey {
    /// Returns the key in hex.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Returns the key of a result that depends on found inputs as well.
    pub fn with_found(&self, found: &[DiscoveredInput]) -> Self {
        let mut writer = HashKey::default();
        writer.bytes(&self.0);
        for DiscoveredInput { path, content } in found {
            match content {
                Some(content) => writer.content(FieldKind::Discovered, path.as_bytes(), content),
                None => writer.text(FieldKind::Discovered, path.as_bytes(), b""),
            }
        }
        Self(*writer.0.finalize().as_bytes())
    }
}

impl fmt::Debug for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex()[..8])
    }
}

/// What a field of the key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FieldKind {
    /// Version of the key's format.
    Format,
    /// Operating system and processor.
    Platform,
    /// One command, after interpolation.
    Command,
    /// The directory it runs in.
    Directory,
    /// A declared environment variable.
    Variable,
    /// What a tool printed.
    Tool,
    /// What a probe printed.
    Probe,
    /// An input file.
    Input,
    /// An output of a needed target.
    Need,
    /// A declared output.
    Output,
    /// The command that prints a product's identity.
    Product,
    /// A text that must or must not be printed.
    Expectation,
    /// How the commands are held.
    Sandbox,
    /// Where the commands write down what they read.
    Depfile,
    /// A file that a depfile named.
    Discovered,
    /// What a link among needed outputs leads to.
    SymlinkTarget,
    /// Who may use the results.
    Cache,
}

impl FieldKind {
    /// Returns the word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Format => "key format",
            Self::Platform => "platform",
            Self::Command => "command",
            Self::Directory => "directory",
            Self::Variable => "variable",
            Self::Tool => "tool",
            Self::Probe => "probe",
            Self::Input => "input",
            Self::Need => "needed output",
            Self::Output => "declared output",
            Self::Product => "product command",
            Self::Expectation => "expected text",
            Self::Sandbox => "sandbox",
            Self::Depfile => "depfile",
            Self::Discovered => "found input",
            Self::SymlinkTarget => "linked file",
            Self::Cache => "cache scope",
        }
    }
}

/// One output of a target, as it stood after the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputState {
    /// Where.
    pub path: RepoPath,
    /// What.
    pub content: Content,
}

/// A file that the commands read and no one declared: a depfile named it. It is part of no
/// key, because it is not known before the run, but a result is one of a key *and* of what
/// was found. The root stands for the path of the checkout, which a result may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveredInput {
    /// Where.
    pub path: RepoPath,
    /// What; `None` when nothing was there.
    pub content: Option<Content>,
}

impl DiscoveredInput {
    /// Returns the path of the checkout as something that was found.
    pub fn checkout(root: &Path) -> Self {
        Self {
            path: RepoPath::root(),
            content: Some(Content {
                kind: ContentKind::Directory,
                digest: Digest::of(root.as_os_str().as_bytes()),
            }),
        }
    }
}

/// What a settled target hands to those that need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetOutputs {
    /// Its outputs, sorted by path.
    pub outputs: Vec<OutputState>,
    /// What its product command printed.
    pub product: Option<Vec<u8>>,
}

/// Everything that enters a key, gathered.
pub struct ActionInputs<'a> {
    /// The target.
    pub target: &'a Target,
    /// Its commands, ready to run.
    pub commands: &'a [Vec<OsString>],
    /// The product command, ready to run.
    pub product: Option<&'a [OsString]>,
    /// Declared environment with values; `None` is unset.
    pub env: &'a [(String, Option<OsString>)],
    /// Tools with what they printed.
    pub tools: &'a [(String, Vec<u8>)],
    /// Probes with what they printed.
    pub probes: &'a [(String, Vec<u8>)],
    /// Input files, sorted by path.
    pub inputs: &'a [(RepoPath, Content)],
    /// What links among needed outputs lead to, sorted by path.
    pub linked: &'a [(RepoPath, Content)],
    /// Needed targets by name, with what they made.
    pub needs: &'a [(&'a str, Arc<TargetOutputs>)],
}

/// Takes the fields of a key.
pub trait KeyWriter {
    /// Takes a field with a text value.
    fn text(&mut self, kind: FieldKind, name: &[u8], value: &[u8]);
    /// Takes a field with a content; `name` is a path.
    fn content(&mut self, kind: FieldKind, name: &[u8], content: &Content);
}

/// Writes all fields of a key, in a fixed order.
pub fn write_key(parts: &ActionInputs<'_>, out: &mut dyn KeyWriter) {
    use FieldKind::*;
    let target = parts.target;
    out.text(Format, b"", KEY_VERSION.as_bytes());
    let here = [std::env::consts::OS, "-", std::env::consts::ARCH].concat();
    let platform = target.platform.as_ref().unwrap_or(&here);
    out.text(Platform, b"", platform.as_bytes());
    out.text(Directory, b"", target.dir.as_bytes());
    for (i, command) in parts.commands.iter().enumerate() {
        out.text(Command, (i + 1).to_string().as_bytes(), &joined(command));
    }
    for (name, value) in parts.env {
        // A leading byte tells unset from empty.
        let value = value
            .as_ref()
            .map_or(vec![b'-'], |v| [b"=", v.as_bytes()].concat());
        out.text(Variable, name.as_bytes(), &value);
    }
    for (name, printed) in parts.tools {
        out.text(Tool, name.as_bytes(), printed);
    }
    for (name, printed) in parts.probes {
        out.text(Probe, name.as_bytes(), printed);
    }
    for (path, content) in parts.inputs {
        out.content(Input, path.as_bytes(), content);
    }
    for (path, content) in parts.linked {
        out.content(SymlinkTarget, path.as_bytes(), content);
    }
    write_needs(parts.needs, out);
    for output in &target.outputs {
        let count = output.count.map_or(String::new(), |c| c.to_string());
        out.text(
            Output,
            output.pattern.to_string().as_bytes(),
            count.as_bytes(),
        );
    }
    for pattern in &target.not_outputs {
        out.text(Output, format!("!{pattern}").as_bytes(), b"");
    }
    if let Some(product) = parts.product {
        out.text(Product, b"", &joined(product));
    }
    for text in &target.expect {
        out.text(Expectation, text.as_bytes(), b"expect");
    }
    for text in &target.reject {
        out.text(Expectation, text.as_bytes(), b"reject");
    }
    if target.sandbox.is_some() {
        out.text(Sandbox, b"", b"strict");
    }
    if let Some(word) = target.cache.key_word() {
        out.text(Cache, b"", word.as_bytes());
    }
    if let Some(depfile) = &target.depfile {
        out.text(Depfile, b"", depfile.as_bytes());
    }
}

fn write_needs(needs: &[(&str, Arc<TargetOutputs>)], out: &mut dyn KeyWriter) {
    for (name, made) in needs {
        for output in &made.outputs {
            out.content(FieldKind::Need, output.path.as_bytes(), &output.content);
        }
        if let Some(product) = &made.product {
            out.text(FieldKind::Need, name.as_bytes(), product);
        }
    }
}

/// Returns what a group hands on to those that need it: a product that stands for all that its
/// members made, or nothing where they made nothing.
pub fn group_outputs(members: &[(&str, Arc<TargetOutputs>)]) -> TargetOutputs {
    let makes = |(_, made): &(&str, Arc<TargetOutputs>)| **made != TargetOutputs::default();
    if !members.iter().any(makes) {
        return TargetOutputs::default();
    }
    let mut writer = HashKey::default();
    write_needs(members, &mut writer);
    TargetOutputs {
        outputs: Vec::new(),
        product: Some(writer.0.finalize().to_hex().as_bytes().to_vec()),
    }
}

fn joined(words: &[OsString]) -> Vec<u8> {
    words.join(OsStr::new("\0")).into_encoded_bytes()
}

/// Makes the digest.
#[derive(Default)]
pub struct HashKey(blake3::Hasher);

impl HashKey {
    /// Returns the key of `parts`.
    pub fn of(parts: &ActionInputs<'_>) -> ActionKey {
        let mut writer = Self::default();
        write_key(parts, &mut writer);
        ActionKey(*writer.0.finalize().as_bytes())
    }

    /// Lengths stand before the bytes, so that no two lists of fields look alike.
    fn bytes(&mut self, bytes: &[u8]) {
        self.0
            .update(&(bytes.len() as u64).to_le_bytes())
            .update(bytes);
    }
}

impl KeyWriter for HashKey {
    fn text(&mut self, kind: FieldKind, name: &[u8], value: &[u8]) {
        self.0.update(&[kind as u8, 0]);
        self.bytes(name);
        self.bytes(value);
    }

    fn content(&mut self, kind: FieldKind, name: &[u8], content: &Content) {
        self.0.update(&[kind as u8, 1 + content.kind as u8]);
        self.bytes(name);
        self.0
            .update(&content.digest.size.to_le_bytes())
            .update(&content.digest.hash);
    }
}

/// One field of a key, kept to explain a later difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// What it is about.
    pub kind: FieldKind,
    /// Path, variable, tool …; escaped for people.
    pub name: String,
    /// Value for people; long ones are shown as their digest.
    pub value: String,
}

/// Makes the list of fields for `rel why`.
#[derive(Default)]
pub struct ExplainKey(Vec<Field>);

/// Values longer than this are explained by their digest.
const SHOWN_BYTES_MAX: usize = 400;

impl ExplainKey {
    /// Returns the fields of `parts`.
    pub fn of(parts: &ActionInputs<'_>) -> Vec<Field> {
        let mut writer = Self::default();
        write_key(parts, &mut writer);
        writer.0
    }
}

impl KeyWriter for ExplainKey {
    fn text(&mut self, kind: FieldKind, name: &[u8], value: &[u8]) {
        let shown_value = match (kind, value) {
            _ if value.len() > SHOWN_BYTES_MAX => Digest::of(value).to_string(),
            (FieldKind::Variable, b"-") => String::from("(unset)"),
            (FieldKind::Variable, _) => format!("\"{}\"", shown(OsStr::from_bytes(&value[1..]))),
            _ => {
                let words = String::from_utf8_lossy(value).trim().replace('\0', " ");
                shown(OsStr::new(&words)).into_owned()
            }
        };
        let name = shown(OsStr::from_bytes(name)).into_owned();
        self.0.push(Field {
            kind,
            name,
            value: shown_value,
        });
    }

    fn content(&mut self, kind: FieldKind, name: &[u8], content: &Content) {
        let name = shown(OsStr::from_bytes(name)).into_owned();
        let value = shown_content(content);
        self.0.push(Field { kind, name, value });
    }
}

/// Returns a content as reasons show it.
pub fn shown_content(content: &Content) -> String {
    let digest = &content.digest;
    let value = format!("{} {}", &digest.hex()[..16], shown_size(digest.size));
    match content.kind {
        ContentKind::File => value,
        kind => format!("{value} {}", kind.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::graph::tests::bare;
    use proptest::prelude::*;

    fn content(bytes: &[u8]) -> Content {
        Content {
            kind: ContentKind::File,
            digest: Digest::of(bytes),
        }
    }

    type Env = Vec<(String, Option<OsString>)>;

    fn key(commands: &[Vec<OsString>], env: &Env, inputs: &[(RepoPath, Content)]) -> ActionKey {
        let target = bare("t", &[]);
        HashKey::of(&ActionInputs {
            target: &target,
            commands,
            product: None,
            env,
            tools: &[],
            probes: &[],
            inputs,
            linked: &[],
            needs: &[],
        })
    }

    #[test]
    fn unset_differs_from_empty() {
        let unset = key(&[], &vec![("A".into(), None)], &[]);
        let empty = key(&[], &vec![("A".into(), Some("".into()))], &[]);
        let dash = key(&[], &vec![("A".into(), Some("-".into()))], &[]);
        assert_ne!(unset, empty);
        assert_ne!(unset, dash);
    }

    #[test]
    fn a_platform_stands_in_for_this_machine() {
        let fields = |platform: Option<&str>| {
            let target = Target {
                platform: platform.map(str::to_owned),
                ..bare("t", &[])
            };
            let parts = ActionInputs {
                target: &target,
                commands: &[],
                product: None,
                env: &[],
                tools: &[],
                probes: &[],
                inputs: &[],
                linked: &[],
                needs: &[],
            };
            let found = ExplainKey::of(&parts);
            let field = found.into_iter().find(|f| f.kind == FieldKind::Platform);
            (field.map(|f| f.value), HashKey::of(&parts))
        };
        let here = [std::env::consts::OS, "-", std::env::consts::ARCH].concat();
        assert_eq!(fields(None).0, Some(here.clone()));
        assert_eq!(fields(None), fields(Some(&here)));
        assert_eq!(fields(Some("any")).0.as_deref(), Some("any"));
        assert_ne!(fields(None).1, fields(Some("any")).1);
    }

    #[test]
    fn found_inputs_make_keys_of_their_own() {
        let found = |path: &str, content| DiscoveredInput {
            path: RepoPath::new(path),
            content,
        };
        let (a, b) = (content(b"a"), content(b"b"));
        let lists = [
            vec![],
            vec![found("a", None)],
            vec![found("a", Some(a))],
            vec![found("a", Some(b))],
            vec![found("b", Some(a))],
            vec![found("a", Some(a)), found("b", None)],
        ];
        let key = ActionKey([7; 32]);
        let mut keys: Vec<[u8; 32]> = lists.iter().map(|l| key.with_found(l).0).collect();
        keys.push(key.0);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), lists.len() + 1);
    }

    #[test]
    fn an_executable_bit_changes_the_key() {
        let file = content(b"x");
        let executable = Content {
            kind: ContentKind::Executable,
            ..file
        };
        let path = RepoPath::new("f");
        assert_ne!(
            key(&[], &vec![], &[(path.clone(), file)]),
            key(&[], &vec![], &[(path, executable)])
        );
    }

    proptest! {
        /// Two different actions never have the same key, however their words are split.
        #[test]
        fn keys_are_equal_exactly_when_the_parts_are(
            a in proptest::collection::vec(proptest::collection::vec("[ab\\-]{0,3}", 0..3), 0..3),
            b in proptest::collection::vec(proptest::collection::vec("[ab\\-]{0,3}", 0..3), 0..3),
            x in proptest::collection::vec(("[ab]{1,2}", proptest::option::of("[ab\\-]{0,2}")), 0..3),
            y in proptest::collection::vec(("[ab]{1,2}", proptest::option::of("[ab\\-]{0,2}")), 0..3),
        ) {
            let words = |v: &Vec<Vec<String>>| -> Vec<Vec<OsString>> {
                v.iter().map(|c| c.iter().map(OsString::from).collect()).collect()
            };
            let env = |v: &Vec<(String, Option<String>)>| -> Env {
                v.iter().map(|(n, v)| (n.clone(), v.clone().map(OsString::from))).collect()
            };
            // An empty argument list and one empty word are both an empty command to the key.
            prop_assume!(a.iter().chain(&b).all(|c| !c.is_empty()));
            let same = a == b && x == y;
            prop_assert_eq!(key(&words(&a), &env(&x), &[]) == key(&words(&b), &env(&y), &[]), same);
        }
    }
}
