//! Mistakes as text: each with its line, an arrow at the place, and a hint.
//!
//! The only room that knows miette's renderer. It returns text and prints nothing.

use std::fmt;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, Severity, SourceCode, SourceSpan, SpanContents,
};

use crate::source::{Mistake, Place, Sources};

/// What the renderer asks [`Lines`] for when it wants a picture and not a position.
const WHOLE_LINES: usize = 1;

/// A longer line is not drawn: the renderer counts columns in 16 bits, four of them a tab.
const LINE_MAX: usize = 10_000;

/// So many mistakes are told at once: more of them have one cause, and nobody reads on.
const SHOWN_MAX: usize = 50;

/// Returns the mistakes as text for people, `width` columns wide, in the order given.
pub fn render(mistakes: &[Mistake], sources: &Sources, width: usize, color: bool) -> String {
    let theme = match color {
        true => GraphicalTheme::unicode(),
        false => GraphicalTheme::unicode_nocolor(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width)
        .with_links(false)
        .with_context_lines(WHOLE_LINES);
    let mut out = String::new();
    for mistake in mistakes.iter().take(SHOWN_MAX) {
        let report = Report::new(mistake, sources);
        if handler.render_report(&mut out, &report).is_err() {
            // Only a broken span can do this; the sentence is better than nothing.
            out.push_str(&mistake.message);
        }
        out.push('\n');
    }
    if let more @ 1.. = mistakes.len().saturating_sub(SHOWN_MAX) {
        out.push_str(&format!(
            "and {more} more: they are told when these are mended\n"
        ));
    }
    // The renderer pads lines; nobody wants to select that.
    out.lines()
        .map(|line| line.trim_end())
        .collect::<Vec<_>>()
        .join("\n")
        .trim_end()
        .to_owned()
        + if mistakes.is_empty() { "" } else { "\n" }
}

#[derive(Debug)]
struct Report<'a> {
    mistake: &'a Mistake,
    source: Option<Lines>,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
}

impl<'a> Report<'a> {
    fn new(mistake: &'a Mistake, sources: &Sources) -> Self {
        let help = mistake.help.clone();
        let file = sources.get(mistake.place);
        let mut labels = vec![LabeledSpan::new_primary_with_span(
            Some(clean(&mistake.label)),
            (mistake.place.start as usize, mistake.place.len as usize),
        )];
        // Without a length there is no place, only a file: no picture.
        let is_placed = mistake.place.len > 0 || mistake.code == "syntax";
        let is_drawn = |place: &Place| sources.get(*place).is_some_and(|f| fits(&f.text, *place));
        let source = file.filter(|_| is_placed && is_drawn(&mistake.place));
        let source = source.map(|f| Lines {
            name: f.path.display().to_string(),
            text: Arc::clone(&f.text),
        });
        // One picture shows one file; what is not in it is told in words.
        let mut words = Vec::new();
        if is_placed && source.is_none() && file.is_some() {
            let (at, byte) = (sources.locate(mistake.place), mistake.place.start);
            words.push(format!(
                "{}: {at}, at byte {byte} of the file",
                mistake.label
            ));
        }
        match &mistake.also {
            Some((place, text))
                if place.file == mistake.place.file && source.is_some() && is_drawn(place) =>
            {
                labels.push(label(*place, text));
            }
            Some((place, text)) => words.push(format!("{text}: {}", sources.locate(*place))),
            None => {}
        }
        words.extend(help);
        let help = (!words.is_empty()).then(|| words.join("\n"));
        Self {
            mistake,
            source,
            labels,
            help: help.as_deref().map(clean),
        }
    }
}

/// Returns whether no line of a span is too long to be drawn.
fn fits(text: &str, place: Place) -> bool {
    let start = place.start as usize;
    let end = start + place.len as usize;
    let line_start = text.get(..start).and_then(|t| t.rfind('\n'));
    let line_end = text.get(end..).and_then(|t| t.find('\n'));
    let lines = line_start.map_or(0, |n| n + 1)..line_end.map_or(text.len(), |n| end + n);
    let lines = text.get(lines).unwrap_or_default();
    lines.split('\n').all(|line| line.len() <= LINE_MAX)
}

/// A file that shows the lines of a span as a whole, and none around them: the
/// renderer's own source shows either more lines or the bare span.
#[derive(Debug)]
struct Lines {
    name: String,
    text: Arc<str>,
}

impl SourceCode for Lines {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let bytes = self.text.as_bytes();
        let first = span.offset().min(bytes.len());
        let last = (first + span.len()).min(bytes.len());
        let is_newline = |b: &u8| *b == b'\n';
        let line_start = bytes[..first]
            .iter()
            .rposition(is_newline)
            .map_or(0, |n| n + 1);
        let line_end = bytes[last..]
            .iter()
            .position(is_newline)
            .map_or(bytes.len(), |n| last + n);
        let count = |part: &[u8]| part.iter().filter(|b| is_newline(b)).count();
        let is_picture = before >= WHOLE_LINES;
        let (start, end) = match is_picture {
            true => (line_start, line_end),
            false => (first, last),
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            &bytes[start..end],
            (start, end - start).into(),
            count(&bytes[..start]),
            self.text
                .get(line_start..start)
                .map_or(0, |t| t.chars().count()),
            count(&bytes[start..end]),
        )))
    }
}

/// Escapes control characters: a value must not move the cursor.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

fn label(place: Place, text: &str) -> LabeledSpan {
    LabeledSpan::new(Some(clean(text)), place.start as usize, place.len as usize)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clean(&self.mistake.message))
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        Some(Box::new(format!("rel::releasefile::{}", self.mistake.code)))
    }

    fn severity(&self) -> Option<Severity> {
        Some(match self.mistake.is_warning {
            true => Severity::Warning,
            false => Severity::Error,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        let help = self.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        Some(Box::new(self.labels.iter().cloned()))
    }
}
