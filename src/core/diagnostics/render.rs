//! Mistakes as text: each with its line, an arrow at the place, and a hint.
//!
//! The only module that knows miette's renderer. It returns text and prints nothing.

use std::fmt;
use std::sync::Arc;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, Severity,
    SourceCode, SourceSpan, SpanContents,
};

use super::{Diagnostic, SourceMap, Span};
use crate::core::escape::{is_unsafe, line};

/// What the renderer asks [`Lines`] for when it wants a picture and not a position.
const WHOLE_LINES: usize = 1;

/// A longer line is not drawn: the renderer counts columns in 16 bits, four of them a tab.
const LINE_MAX: usize = 10_000;

/// So many mistakes are reported at once: more of them have one cause, and are not read.
const SHOWN_MAX: usize = 50;

/// Returns the mistakes as text for people, `width` columns wide, in the order given.
pub fn report(mistakes: &[Diagnostic], sources: &SourceMap, width: usize, color: bool) -> String {
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
            out.push_str(&line(&mistake.message));
        }
        out.push('\n');
    }
    if let more @ 1.. = mistakes.len().saturating_sub(SHOWN_MAX) {
        out.push_str(&format!("… and {more} more errors not shown\n"));
    }
    // The renderer pads lines, which is in the way when text is selected.
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
    mistake: &'a Diagnostic,
    source: Option<Lines>,
    labels: Vec<LabeledSpan>,
    help: Option<String>,
}

impl<'a> Report<'a> {
    fn new(mistake: &'a Diagnostic, sources: &SourceMap) -> Self {
        let help = mistake.help.clone();
        let file = sources.get(mistake.place).map(|f| Lines {
            name: line(&f.path.to_string_lossy()).into_owned(),
            shown: shown(&f.text),
            text: Arc::clone(&f.text),
        });
        // Without a length there is no place, only a file: no picture.
        let is_placed = mistake.place.len > 0 || mistake.code == "syntax";
        let is_drawn = |file: &Lines| is_placed && file.fits(mistake.place);
        // One picture shows one file; what is not in it is reported in words.
        let mut words = Vec::new();
        if is_placed && file.as_ref().is_some_and(|f| !is_drawn(f)) {
            let (at, byte) = (sources.locate(mistake.place), mistake.place.start);
            words.push(format!(
                "{}: {at}, at byte {byte} of the file",
                mistake.label
            ));
        }
        let source = file.filter(is_drawn);
        let label = |place: Span, text: &str| {
            let (start, len) = source.as_ref()?.span(place);
            Some(LabeledSpan::new(Some(line(text).into_owned()), start, len))
        };
        let mut labels = Vec::new();
        if let Some(file) = &source {
            let text = Some(line(&mistake.label).into_owned());
            let span = file.span(mistake.place);
            labels.push(LabeledSpan::new_primary_with_span(text, span));
        }
        if let Some((place, text)) = &mistake.also {
            let is_here = place.file == mistake.place.file
                && source.as_ref().is_some_and(|file| file.fits(*place));
            match label(*place, text).filter(|_| is_here) {
                Some(label) => labels.push(label),
                None => words.push(format!("{text}: {}", sources.locate(*place))),
            }
        }
        words.extend(help);
        let words = words.iter().flat_map(|text| text.lines()).map(line);
        let words: Vec<_> = words.collect();
        Self {
            mistake,
            source,
            labels,
            help: (!words.is_empty()).then(|| words.join("\n")),
        }
    }
}

/// A file that shows the lines of a span as a whole, and none around them: the
/// renderer's own source shows either more lines or the bare span.
#[derive(Debug)]
struct Lines {
    name: String,
    /// The file as it is shown: the renderer draws this, and spans point into it.
    shown: Arc<str>,
    /// The file as it is: columns are counted in this.
    text: Arc<str>,
}

/// Returns a source with all but its line ends escaped.
fn shown(text: &Arc<str>) -> Arc<str> {
    match text
        .chars()
        .any(|c| !matches!(c, '\n' | '\t') && is_unsafe(c))
    {
        true => Arc::from(escaped(text)),
        false => Arc::clone(text),
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let lines = text.split('\n').map(line);
    lines.collect::<Vec<_>>().join("\n")
}

impl Lines {
    /// Returns start and length in what is shown of a place in the file.
    fn span(&self, place: Span) -> (usize, usize) {
        let start = place.start as usize;
        let len = place.len as usize;
        if Arc::ptr_eq(&self.text, &self.shown) {
            return (start, len);
        }
        let at = |end: usize| {
            let before = self.text.get(..end).unwrap_or(&self.text);
            // The carriage return of a line end is not shown.
            let behind = self.text.get(before.len()..).unwrap_or_default();
            let within = before
                .strip_suffix('\r')
                .filter(|_| behind.starts_with('\n'));
            escaped(within.unwrap_or(before)).len()
        };
        let first = at(start);
        (first, at(start + len).saturating_sub(first))
    }

    /// Returns whether no line of a span is too long to be drawn.
    fn fits(&self, place: Span) -> bool {
        let (start, len) = self.span(place);
        let (text, end) = (&self.shown, start + len);
        let line_start = text.get(..start).and_then(|t| t.rfind('\n'));
        let line_end = text.get(end..).and_then(|t| t.find('\n'));
        let lines = line_start.map_or(0, |n| n + 1)..line_end.map_or(text.len(), |n| end + n);
        let lines = text.get(lines).unwrap_or_default();
        lines.split('\n').all(|line| line.len() <= LINE_MAX)
    }

    /// Returns the column in the file, in characters from 0 on, of what is shown at `start`;
    /// its line begins at `line_start`.
    fn column(&self, line_start: usize, start: usize) -> usize {
        let before = self.shown.get(line_start..start).unwrap_or_default();
        if Arc::ptr_eq(&self.text, &self.shown) {
            return before.chars().count();
        }
        let number = self.shown[..line_start].matches('\n').count();
        let own = self.text.split('\n').nth(number).unwrap_or_default();
        let ends = own.char_indices().map(|(i, _)| i).chain([own.len()]);
        let column = ends.take_while(|end| line(&own[..*end]).len() < before.len());
        column.count()
    }
}

impl SourceCode for Lines {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        _after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let bytes = self.shown.as_bytes();
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
            self.column(line_start, start),
            count(&bytes[start..end]),
        )))
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(&self.mistake.message))
    }
}

impl std::error::Error for Report<'_> {}

impl miette::Diagnostic for Report<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        Some(Box::new(format!(
            "rel::build::releasefile::{}",
            self.mistake.code
        )))
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
