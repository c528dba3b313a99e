//! Values out of elements, with every problem noted in one place.
//!
//! Blanks around values are trimmed everywhere: no value of the contract begins or ends with one. A bad
//! value leaves the default in place, so that one pass finds all problems.

use std::sync::Arc;
use std::time::Duration;

use tld_xml::{Diagnostic, Element, Severity, Source, Span};

use crate::settings::Label;

/// More problems than this are not worth reading.
const MAX_DIAGNOSTICS: usize = 200;

/// One source and what was found wrong so far.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: &'a Source,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source, diagnostics: &'a mut Vec<Diagnostic>) -> Self {
        Self { source, diagnostics }
    }

    pub(crate) fn file(&self) -> Arc<str> {
        Arc::clone(&self.source.name)
    }

    pub(crate) fn line(&self, element: &Element) -> u32 {
        self.source.line_of(element.span)
    }

    /// Errors so far; a block is kept when the number has not changed.
    pub(crate) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|d| d.is_error()).count()
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let room = self.diagnostics.len() < MAX_DIAGNOSTICS;
        // One error must stay visible whatever came before it: it decides whether the file is refused.
        if room || (diagnostic.severity == Severity::Error && self.errors() == 0) {
            self.diagnostics.push(diagnostic);
        }
    }

    pub(crate) fn error(
        &mut self,
        code: Option<u16>,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut error = Diagnostic::error(self.source, self.trimmed(span), message).with_help(help);
        error.code = code;
        self.push(error);
    }

    pub(crate) fn warning(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let warning = Diagnostic::warning(self.source, self.trimmed(span), message).with_help(help);
        self.push(warning);
    }

    pub(crate) fn info(
        &mut self,
        code: u16,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let info = Diagnostic::info(self.source, self.trimmed(span), message).with_help(help).with_code(code);
        self.push(info);
    }

    pub(crate) fn warning_with(&mut self, code: u16, span: Span, message: String, help: &str) {
        let warning =
            Diagnostic::warning(self.source, self.trimmed(span), message).with_help(help).with_code(code);
        self.push(warning);
    }

    /// Error 1230: an element that the section does not know.
    pub(crate) fn unknown(&mut self, child: &Element, section: &str, known: &[&str]) {
        let message = format!("unknown element `{}` in `{section}`", short(&child.name));
        self.error(Some(1230), child.name_span, message, crate::suggest::help(&child.name, known));
    }

    /// The same as a warning, for sections that differ between releases: a service that another product's file starts must
    /// go on, and what is left out must still be seen. `known` are elements that are read, or have no meaning here.
    pub(crate) fn left_out(&mut self, child: &Element, section: &str, known: &[&str]) {
        if !known.contains(&child.name.as_str()) {
            let message = format!("unknown element `{}` in `{section}`, left out", short(&child.name));
            self.warning(child.name_span, message, crate::suggest::help(&child.name, known));
        }
    }

    /// Trimmed content; none when nothing is left.
    pub(crate) fn text(&self, element: &Element) -> Option<String> {
        let text = element.text();
        let trimmed = text.trim();
        (!trimmed.is_empty()).then(|| trimmed.to_owned())
    }

    /// Trimmed attribute.
    pub(crate) fn attribute(&self, element: &Element, name: &str) -> Option<String> {
        element.attribute(name).map(|a| a.text().trim().to_owned())
    }

    /// Notes an attribute's bad value.
    pub(crate) fn bad_attribute<T>(&mut self, element: &Element, name: &str, wanted: &str) -> Option<T> {
        if let Some(attribute) = element.attribute(name) {
            let message = format!("`{}` is no value of `{name}`", short(&attribute.text()));
            self.error(Some(1235), attribute.value_span, message, wanted);
        }
        None
    }

    /// Words between commas, empty ones left out.
    pub(crate) fn list(&self, element: &Element) -> Vec<String> {
        let text = element.text();
        text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    }

    /// Notes a bad value: error 1235.
    pub(crate) fn invalid(&mut self, element: &Element, wanted: impl Into<String>) {
        let text = element.text();
        let message = format!("`{}` is not a valid value of `{}`", short(text.trim()), short(&element.name));
        let span = if text.trim().is_empty() { element.name_span } else { element.content_span };
        self.error(Some(1235), span, message, wanted);
    }

    pub(crate) fn yes_no(&mut self, element: &Element, into: &mut bool) {
        match self.text(element).as_deref() {
            Some("yes") => *into = true,
            Some("no") => *into = false,
            _ => self.invalid(element, "write `yes` or `no`"),
        }
    }

    /// A number of plain digits within a range.
    pub(crate) fn number(&mut self, element: &Element, least: u64, most: u64) -> Option<u64> {
        let number = self.text(element).and_then(|t| digits(&t)).filter(|n| (least..=most).contains(n));
        if number.is_none() {
            self.invalid(element, format!("a number from {least} to {most}"));
        }
        number
    }

    pub(crate) fn level(&mut self, element: &Element, least: u8, most: u8, into: &mut u8) {
        let number = self.number(element, least.into(), most.into());
        if let Some(level) = number.and_then(|n| u8::try_from(n).ok()) {
            *into = level;
        }
    }

    pub(crate) fn port(&mut self, element: &Element, into: &mut u16) {
        let number = self.number(element, 1, u16::MAX.into());
        if let Some(port) = number.and_then(|n| u16::try_from(n).ok()) {
            *into = port;
        }
    }

    pub(crate) fn duration(&mut self, element: &Element, into: &mut Duration) {
        match self.text(element).as_deref().and_then(parse_duration) {
            Some(duration) => *into = duration,
            None => self.invalid(element, "seconds, or a number with `s`, `m`, `h`, `d` or `w`"),
        }
    }

    pub(crate) fn size(&mut self, element: &Element, into: &mut u64) {
        match self.text(element).as_deref().and_then(parse_size) {
            Some(size) => *into = size,
            None => self.invalid(element, "bytes, or a number with `K`, `M` or `G`"),
        }
    }

    /// A `<label key="…">`; keys with a leading `_` belong to the product and are skipped.
    pub(crate) fn label(&mut self, element: &Element) -> Option<Label> {
        let Some(key) = self.attribute(element, "key").filter(|k| !k.is_empty()) else {
            let help = "write `<label key=\"a.b\">…</label>`";
            self.error(Some(1235), element.name_span, "`label` without a `key` attribute", help);
            return None;
        };
        if key.starts_with('_') {
            self.warning(
                element.name_span,
                format!("label `{}` is skipped", short(&key)),
                "keys cannot begin with `_`",
            );
            return None;
        }
        let hidden = self.attribute(element, "hidden").as_deref() == Some("yes");
        Some(Label { key, value: self.text(element).unwrap_or_default(), hidden })
    }

    /// The span without the blanks at its ends, so that the caret sits under the value.
    fn trimmed(&self, span: Span) -> Span {
        let bytes = self.source.slice(span);
        let inner = bytes.trim_ascii();
        if inner.is_empty() {
            return span;
        }
        let lead = bytes.len() - bytes.trim_ascii_start().len();
        let start = u32::try_from(lead).map_or(span.start, |lead| span.start + lead);
        let length = u32::try_from(inner.len()).unwrap_or(0);
        Span { start, end: start + length }
    }
}

/// A name from the file, short enough for a message.
pub(crate) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Plain decimal digits.
pub(crate) fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Seconds, or a number with a unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.as_bytes().last()? {
        b's' => (&text[..text.len() - 1], 1),
        b'm' => (&text[..text.len() - 1], 60),
        b'h' => (&text[..text.len() - 1], 3600),
        b'd' => (&text[..text.len() - 1], 86_400),
        b'w' => (&text[..text.len() - 1], 7 * 86_400),
        _ => (text, 1),
    };
    let seconds = digits(number.trim_end())?.checked_mul(unit)?;
    // A century: longer spans only serve to make clocks overflow.
    (seconds <= 100 * 366 * 86_400).then(|| Duration::from_secs(seconds))
}

/// Bytes, or a number with a unit (`10K`, `10KB`, `10 MiB`).
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits(&text[..end])?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_a_unit_and_refuse_the_absurd() {
        assert_eq!(parse_duration("15m"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("90"), Some(Duration::from_secs(90)));
        for bad in ["", "m", "-1", "1.5h", "99999999999999999999", "18446744073709551615w", "1é"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_take_a_unit() {
        assert_eq!(parse_size("10MB"), Some(10 << 20));
        assert_eq!(parse_size("512"), Some(512));
        for bad in ["", "MB", "1X", "-1", "99999999999G"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
