//! Problems in user files, as data: where, what, and what to do about it.
//!
//! A diagnostic owns the line it points at, so it outlives the file. Text taken from the file never
//! reaches a terminal with control characters in it.

use std::fmt;
use std::sync::Arc;

use crate::{Source, Span};

/// Characters of a source line that are kept; longer lines are shown as a window around the problem.
const LINE_WINDOW: usize = 160;
/// Characters kept before the problem when a line is cut.
const LINE_LEAD: usize = 60;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file loads, part of it does not do what it seems to.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// The word that opens a rendered diagnostic.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// One problem in a user file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Number of the contract's message, where it has one.
    pub code: Option<u16>,
    /// Name of the file.
    pub file: Arc<str>,
    /// Line from 1; 0 when the problem has no place.
    pub line: u32,
    /// Column in characters from 1; 0 when the problem has no place.
    pub column: u32,
    /// The line, or a window of it.
    pub source_line: String,
    /// Width of the caret in characters.
    pub width: u32,
    /// What is wrong: lower case, no full stop, objects in backticks.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    caret: u32,
}

impl Diagnostic {
    /// A problem that refuses the file.
    pub fn error(source: &Source, span: Span, message: impl Into<String>) -> Self {
        Self::at(Severity::Error, source, span, message.into())
    }

    /// A problem that the file loads with.
    pub fn warning(source: &Source, span: Span, message: impl Into<String>) -> Self {
        Self::at(Severity::Warning, source, span, message.into())
    }

    /// A remark.
    pub fn info(source: &Source, span: Span, message: impl Into<String>) -> Self {
        Self::at(Severity::Info, source, span, message.into())
    }

    /// A problem of a file as a whole.
    pub fn bare(severity: Severity, file: impl Into<Arc<str>>, message: impl Into<String>) -> Self {
        Self {
            severity,
            code: None,
            file: file.into(),
            line: 0,
            column: 0,
            source_line: String::new(),
            width: 0,
            message: message.into(),
            help: None,
            caret: 0,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the contract's message number.
    #[must_use]
    pub fn with_code(mut self, code: u16) -> Self {
        self.code = Some(code);
        self
    }

    /// Is this a problem that refuses the file?
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Several lines for a human: message, place, the line with a caret, help. No newline at the end.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let (tone, dim, plain) = match (colour, self.severity) {
            (false, _) => ("", "", ""),
            (true, Severity::Error) => ("\x1b[1;31m", "\x1b[34m", "\x1b[0m"),
            (true, Severity::Warning) => ("\x1b[1;33m", "\x1b[34m", "\x1b[0m"),
            (true, Severity::Info) => ("\x1b[1;36m", "\x1b[34m", "\x1b[0m"),
        };
        let word = self.severity.word();
        let code = self.code.map(|c| format!("[{c}]")).unwrap_or_default();
        let message = printable(&self.message);
        let file = printable(&self.file);
        let mut out = format!("{tone}{word}{code}{plain}: {message}");
        let number = self.line.to_string();
        let margin = number.len();
        let pad = " ".repeat(margin);
        if self.column == 0 {
            // A whole file, or a line whose text was not kept.
            let line = if self.line == 0 { String::new() } else { format!(":{number}") };
            out.push_str(&format!("\n{pad}{dim}-->{plain} {file}{line}"));
        } else {
            let (line, column) = (self.line, self.column);
            let text = &self.source_line;
            let shift = " ".repeat(self.caret as usize);
            let caret = "^".repeat(self.width.max(1) as usize);
            out.push_str(&format!(
                "\n{pad}{dim}-->{plain} {file}:{line}:{column}\n{dim}{number} |{plain} {text}\n{dim}{pad} |{plain} {shift}{tone}{caret}{plain}"
            ));
        }
        if let Some(help) = &self.help {
            out.push_str(&format!("\n{pad}{dim} ={plain} help: {}", printable(help)));
        }
        out
    }

    fn at(severity: Severity, source: &Source, span: Span, message: String) -> Self {
        let text = &source.text;
        let start = (span.start as usize).min(text.len());
        let end = (span.end as usize).clamp(start, text.len());
        let from = memchr::memrchr(b'\n', &text[..start]).map_or(0, |n| n + 1);
        let to = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |n| start + n);
        let before = chars(&text[from..start]);
        let marked = chars(&text[start..end.min(to)]).max(1);
        let skip = if before > LINE_WINDOW - LINE_LEAD { before - LINE_LEAD } else { 0 };
        let line = printable(&String::from_utf8_lossy(&text[from..to]));
        let window: String = line.chars().skip(skip).take(LINE_WINDOW).collect();
        let fit = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: source.line_of(span),
            column: fit(before + 1),
            width: fit(marked.min(LINE_WINDOW - (before - skip))),
            caret: fit(before - skip),
            source_line: window.trim_end().to_owned(),
            ..Self::bare(severity, Arc::clone(&source.name), message)
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostic {}

fn chars(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).chars().count()
}

/// One character for one, so that columns stay true: blanks for tabs and newlines, a mark for other controls.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}
