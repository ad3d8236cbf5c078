//! Names in texts: variables and axes are bound here; what is known only later is
//! checked here and left in the template.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use super::node::{Diagnostics, SpannedText};
use crate::core::diagnostics::{Diagnostic, SourceMap, Span, suggest};
use crate::core::fs::{RepoPath, shown};
use crate::core::template::{Mode, Template, TemplateError, Value};

/// Names that mean something of their own in a target or a recipe.
pub(crate) const RESERVED: &[&str] = &[
    "out",
    "in",
    "inputs",
    "version",
    "host",
    "from",
    "environment",
    "use",
    "project",
    "name",
    "run-id",
];

/// Names that begin so are values of hosts, and what former runs noted.
const RESERVED_HEADS: &[&str] = &["host.", "from.", "notes."];

/// The variables of the project, and which of them were asked for.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    pub(crate) values: BTreeMap<String, Vec<String>>,
    pub(crate) places: BTreeMap<String, Span>,
    used: RefCell<BTreeSet<String>>,
    text_bytes: Cell<usize>,
}

impl Vars {
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let values = self.values.get(name)?;
        self.touch(name);
        Some(match values.as_slice() {
            [one] => Value::One(one.into()),
            many => Value::Many(many.iter().map(OsString::from).collect()),
        })
    }

    /// Notes that a variable is used.
    pub(crate) fn touch(&self, name: &str) {
        if !self.used.borrow().contains(name) {
            self.used.borrow_mut().insert(name.to_owned());
        }
    }

    /// Returns how long all texts that were parsed became, in bytes.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text_bytes.get()
    }

    /// Returns a warning for each unused variable.
    pub(crate) fn unused(&self) -> Vec<Diagnostic> {
        let used = self.used.borrow();
        let warning = |(name, place): (&String, &Span)| {
            let message = format!("the variable `{name}` is never used");
            Diagnostic::new("unused_variable", *place, message, "declared here").warning()
        };
        self.places
            .iter()
            .filter(|(name, _)| !used.contains(*name))
            .map(warning)
            .collect()
    }
}

/// A value of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AxisValue {
    Text(String),
    File(RepoPath),
}

impl AxisValue {
    /// Returns the value as part of a target's name.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => shown(OsStr::new(text)).into_owned(),
            Self::File(path) => path.to_string(),
        }
    }

    /// Returns the value for a command: a path is no option there. The ending of a file is no
    /// path.
    fn for_command(&self, part: Option<&str>) -> Option<Value> {
        let value = self.get(part)?;
        Some(match (self, part) {
            (Self::Text(_), _) | (_, Some("ext")) => Value::One(value),
            (Self::File(_), _) => Value::Path(value),
        })
    }

    fn get(&self, part: Option<&str>) -> Option<OsString> {
        let (path, part) = match (self, part) {
            (Self::Text(text), None) => return Some(text.into()),
            (Self::Text(_), Some(_)) => return None,
            (Self::File(path), None) => return Some(path.as_os_str().to_owned()),
            (Self::File(path), Some(part)) => (path.as_path(), part),
        };
        let or_empty = |name: Option<&OsStr>| name.unwrap_or_default().to_owned();
        match part {
            "name" => Some(or_empty(path.file_name())),
            "stem" => Some(or_empty(path.file_stem())),
            "ext" => Some(or_empty(path.extension())),
            "dir" => {
                let parent = path.parent().map(RepoPath::new)?;
                Some(parent.as_os_str().to_owned())
            }
            _ => None,
        }
    }
}

/// What does not change while a file is decoded.
#[derive(Clone, Copy)]
pub(crate) struct EvalContext<'a> {
    pub(crate) vars: &'a Vars,
    pub(crate) sources: &'a SourceMap,
}

/// The names known early at some place: variables, and axes with one value each.
#[derive(Clone)]
pub(crate) struct NameScope<'a> {
    pub(crate) world: EvalContext<'a>,
    pub(crate) axes: Vec<(&'a str, &'a AxisValue)>,
}

/// Names whose values only a later module knows.
pub(crate) trait DeferredNames {
    /// Returns whether the name will be known.
    fn is_known(&self, name: &str) -> bool;
    /// Returns all such names, for "did you mean".
    fn names(&self) -> Vec<&str>;
    /// Returns why a name that looks right is not known, and what to do.
    fn why_not(&self, name: &str) -> Option<(String, String)>;
}

/// What texts may name besides that are rendered for one host.
pub(crate) struct HostNames<'a>(pub(crate) &'a dyn DeferredNames);

impl DeferredNames for HostNames<'_> {
    fn is_known(&self, name: &str) -> bool {
        let is_built_in = ["project", "environment", "version"].contains(&name);
        is_built_in || name.starts_with("host.") || self.0.is_known(name)
    }

    fn names(&self) -> Vec<&str> {
        let mut names = self.0.names();
        names.extend(["host.name", "host.root", "environment"]);
        names
    }

    fn why_not(&self, name: &str) -> Option<(String, String)> {
        self.0.why_not(name)
    }
}

/// Nothing more will be known.
pub(crate) struct NoDeferred;

impl DeferredNames for NoDeferred {
    fn is_known(&self, _: &str) -> bool {
        false
    }
    fn names(&self) -> Vec<&str> {
        Vec::new()
    }
    fn why_not(&self, name: &str) -> Option<(String, String)> {
        matches!(name, "out" | "in" | "inputs" | "version").then(|| {
            let message = format!("`{{{name}}}` is not known here, but only in commands");
            (message, "write the path itself, or use a `var`".into())
        })
    }
}

impl<'a> NameScope<'a> {
    pub(crate) fn new(world: EvalContext<'a>) -> Self {
        Self {
            world,
            axes: Vec::new(),
        }
    }

    /// Returns the value of an axis or a part of it (`image.stem`).
    pub(crate) fn axis(&self, name: &str) -> Option<OsString> {
        let (value, part) = self.find_axis(name)?;
        value.get(part)
    }

    fn find_axis<'n>(&self, name: &'n str) -> Option<(&AxisValue, Option<&'n str>)> {
        let (head, part) = match name.split_once('.') {
            Some((head, part)) => (head, Some(part)),
            None => (name, None),
        };
        let find = |name: &str| self.axes.iter().find(|(n, _)| *n == name);
        match find(name) {
            Some((_, value)) => Some((value, None)),
            None => find(head).map(|(_, value)| (*value, part)),
        }
    }

    /// Returns the value of a name that is known early.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        match self.axis(name) {
            Some(value) => Some(Value::One(value)),
            None => self.world.vars.get(name),
        }
    }

    /// Returns the value of a name that is known early, for a command.
    pub(crate) fn for_command(&self, name: &str) -> Option<Value> {
        match self.find_axis(name) {
            Some((value, part)) => value.for_command(part),
            None => self.world.vars.get(name),
        }
    }

    /// Parses a text and binds what is known; the rest must be known to `late`.
    pub(crate) fn bind(
        &self,
        text: &SpannedText,
        mode: Mode,
        late: &dyn DeferredNames,
        found: &mut Diagnostics,
    ) -> Option<Template> {
        let parsed = self.parse(text, mode, late, found)?;
        self.reported(parsed.bind(&|n| self.get(n)), text, found)
    }

    /// Parses a text and reports the names that are never known.
    pub(crate) fn parse(
        &self,
        text: &SpannedText,
        mode: Mode,
        late: &dyn DeferredNames,
        found: &mut Diagnostics,
    ) -> Option<Template> {
        let parsed = self.reported(Template::parse(&text.text, mode), text, found)?;
        let mut is_known = true;
        let mut len = text.text.len();
        for name in parsed.names() {
            let value = self.get(name);
            len += value.as_ref().map_or(0, Value::len);
            if value.is_none() && !late.is_known(name) {
                found.push(self.unknown_name(text, name, late));
                is_known = false;
            }
        }
        let all = &self.world.vars.text_bytes;
        all.set(all.get().saturating_add(len));
        is_known.then_some(parsed)
    }

    /// Returns the words a text stands for; all names must be known early.
    pub(crate) fn words(&self, text: &SpannedText, found: &mut Diagnostics) -> Vec<OsString> {
        let Some(parsed) = self.parse(text, Mode::Plain, &NoDeferred, found) else {
            return Vec::new();
        };
        let words = parsed.render_words(&|n| self.get(n));
        self.reported(words, text, found).unwrap_or_default()
    }

    /// Like [`Self::words`], for what must be UTF-8.
    pub(crate) fn strings(&self, text: &SpannedText, found: &mut Diagnostics) -> Vec<String> {
        let words = self.words(text, found);
        let string = |w: OsString| match w.into_string() {
            Ok(text) => Some(text),
            Err(word) => {
                found.push(Diagnostic::new(
                    "not_utf8",
                    text.place,
                    format!("`{}` is not UTF-8, and cannot stand here", shown(&word)),
                    "stands for a name that is not UTF-8",
                ));
                None
            }
        };
        words.into_iter().filter_map(string).collect()
    }

    /// Returns the one string a text stands for.
    pub(crate) fn string(&self, text: &SpannedText, found: &mut Diagnostics) -> Option<String> {
        let parsed = self.parse(text, Mode::Plain, &NoDeferred, found)?;
        let one = self.reported(parsed.render(&|n| self.get(n)), text, found)?;
        one.into_string().ok()
    }

    pub(crate) fn reported<T>(
        &self,
        result: Result<T, TemplateError>,
        text: &SpannedText,
        found: &mut Diagnostics,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let place = match &error {
                    TemplateError::NotAName(name)
                    | TemplateError::Unquotable(name, _)
                    | TemplateError::Unknown(name)
                    | TemplateError::ListInWord(name, _)
                    | TemplateError::Nul(name) => self.narrow(text, name),
                    TemplateError::Unclosed | TemplateError::TooLong => text.place,
                };
                let mistake = Diagnostic::new("bad_template", place, error.to_string(), "here");
                found.push(mistake.help(error.help()));
                None
            }
        }
    }

    fn unknown_name(&self, text: &SpannedText, name: &str, late: &dyn DeferredNames) -> Diagnostic {
        let place = self.narrow(text, name);
        if let Some((message, help)) = late.why_not(name) {
            return Diagnostic::new("unknown_name", place, message, "not known here").help(help);
        }
        let message = format!("`{{{name}}}` is not known here");
        let mistake = Diagnostic::new("unknown_name", place, message, "no such name");
        let vars = self.world.vars.values.keys().map(String::as_str);
        let axes = self.axes.iter().map(|(n, _)| *n);
        match suggest(name, vars.chain(axes).chain(late.names())) {
            Some(near) => mistake.help(format!("did you mean `{{{near}}}`?")),
            None => mistake.help("declare it with `var`, or write `{{` for a literal brace"),
        }
    }

    /// Returns the place of the placeholder inside a string, or of the whole string
    /// where it is written with escapes.
    pub(crate) fn narrow(&self, text: &SpannedText, name: &str) -> Span {
        let whole = text.place;
        let Some(file) = self.world.sources.get(whole) else {
            return whole;
        };
        let (start, len) = (whole.start as usize, whole.len as usize);
        let needle = format!("{{{name}}}");
        let written = file.text.get(start..start + len).unwrap_or_default();
        match written.find(&needle) {
            Some(at) => Span {
                file: whole.file,
                start: whole.start + u32::try_from(at).unwrap_or(0),
                len: u32::try_from(needle.len()).unwrap_or(whole.len),
            },
            None => whole,
        }
    }
}

/// Returns a mistake if `name` cannot stand between braces or means something else.
pub(crate) fn bad_name(what: &str, name: &SpannedText) -> Option<Diagnostic> {
    let text = &name.text;
    let has_head = RESERVED_HEADS.iter().any(|head| text.starts_with(head));
    if has_head || RESERVED.contains(&text.as_str()) {
        let message =
            format!("{what} cannot be called `{text}`: the name has a meaning of its own");
        return Some(Diagnostic::new(
            "reserved_name",
            name.place,
            message,
            "choose another name",
        ));
    }
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_rest = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let is_good = text.starts_with(is_start) && text.chars().all(is_rest);
    (!is_good).then(|| {
        let message = format!("{what} cannot be called `{text}`");
        Diagnostic::new("bad_name", name.place, message, "not a name").help(match what == "a use" && text.contains('{') {
            true => {
                "a name has no `{…}`: what names a value of `each` elsewhere is done for each, as `name[value]`"
            }
            false => {
                "a name starts with a letter and goes on with letters, digits, `-`, `_` and `.`"
            }
        })
    })
}
