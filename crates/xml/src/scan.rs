//! The scanner: bytes to elements, in one pass and without recursion.
//!
//! It accepts exactly the dialect that existing rule sets rely on and stops at the first error, because
//! after a broken tag nothing that follows can be placed. The stack of open elements is explicit, so
//! hostile nesting costs heap and not the thread's stack.

use crate::variables::{Failure, Variables};
use crate::{Attribute, Diagnostic, Element, MAX_ATTRIBUTES, MAX_DEPTH, MAX_TEXT, Severity, Source, Span};

/// Reads all root elements in order; comments are gone, variables are replaced and their definitions dropped.
pub fn parse(source: &Source) -> Result<Vec<Element>, Diagnostic> {
    if u32::try_from(source.text.len()).is_err() {
        let message = "the file is larger than 4 GiB";
        return Err(Diagnostic::bare(Severity::Error, source.name.clone(), message));
    }
    let mut scanner = Scanner {
        source,
        text: &source.text,
        at: 0,
        open: Vec::new(),
        roots: Vec::new(),
        variables: Variables::new(),
    };
    scanner.run()?;
    Ok(scanner.roots)
}

struct Scanner<'a> {
    source: &'a Source,
    text: &'a [u8],
    at: usize,
    open: Vec<Open>,
    roots: Vec<Element>,
    variables: Variables,
}

/// An element whose closing tag has not come yet.
struct Open {
    element: Element,
    /// Definitions that came before the element; later ones do not reach it.
    visible: usize,
    /// Where its text starts, for counting backslashes.
    text_from: usize,
}

impl Scanner<'_> {
    fn run(&mut self) -> Result<(), Diagnostic> {
        while let Some(found) = memchr::memchr(b'<', &self.text[self.at..]) {
            let tag = self.at + found;
            if self.is_escaped(tag) {
                self.keep_text(tag + 1)?;
                continue;
            }
            self.keep_text(tag)?;
            match self.text.get(tag + 1) {
                Some(b'!') => self.skip_comment(tag)?,
                Some(b'/') => self.close_tag(tag)?,
                Some(b'?') if self.open.is_empty() => self.skip_declaration(tag),
                _ => self.open_tag(tag)?,
            }
        }
        self.keep_text(self.text.len())?;
        match self.open.last() {
            None => Ok(()),
            Some(open) => {
                let name = &open.element.name;
                let message = format!("element `{name}` is never closed");
                let help = format!("add `</{name}>`");
                Err(self.error(open.element.name_span, message).with_help(help))
            }
        }
    }

    /// An odd number of backslashes keeps the tag at `tag` from opening.
    fn is_escaped(&self, tag: usize) -> bool {
        let from = self.open.last().map_or(0, |o| o.text_from);
        let run = self.text[from..tag].iter().rev();
        run.take_while(|b| **b == b'\\').count() % 2 == 1
    }

    /// Adds the text up to `to` to the innermost element; text between roots is dropped.
    fn keep_text(&mut self, to: usize) -> Result<(), Diagnostic> {
        let from = std::mem::replace(&mut self.at, to);
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        if !open.element.children.is_empty() {
            return Ok(());
        }
        open.element.content.extend_from_slice(&self.text[from..to]);
        if open.element.content.len() > MAX_TEXT {
            let span = open.element.name_span;
            let message =
                format!("overflow: the content of `{}` is longer than {MAX_TEXT} bytes", open.element.name);
            return Err(self.error(span, message));
        }
        Ok(())
    }

    fn skip_comment(&mut self, tag: usize) -> Result<(), Diagnostic> {
        let from = tag + 2;
        let end = memchr::memchr_iter(b'>', &self.text[from..]).map(|n| from + n).find(|end| {
            let body = &self.text[from..*end];
            body.ends_with(b"--") || body.ends_with(b"!")
        });
        let Some(end) = end else {
            let error = self.error(Span::of(tag, from), "the comment is never closed".to_owned());
            return Err(error.with_help("end it with `-->`"));
        };
        self.at = end + 1;
        Ok(())
    }

    /// `<?xml … ?>` before the first root: real files start with it and nothing depends on it.
    fn skip_declaration(&mut self, tag: usize) {
        let end = memchr::memchr(b'>', &self.text[tag..]);
        self.at = end.map_or(self.text.len(), |n| tag + n + 1);
    }

    fn close_tag(&mut self, tag: usize) -> Result<(), Diagnostic> {
        let from = tag + 2;
        let Some(length) = memchr::memchr(b'>', &self.text[from..]) else {
            let end = self.text.len();
            return Err(self.error(Span::of(tag, end), "the tag has no `>`".to_owned()));
        };
        let span = Span::of(tag, from + length + 1);
        let name = &self.text[from..from + length];
        let Some(open) = self.open.pop() else {
            let message = format!("`{}` closes nothing", self.excerpt(span));
            return Err(self.error(span, message));
        };
        let opened = open.element.name_span;
        if name != self.source.slice(opened) {
            let line = self.source.line_of(opened);
            let message = format!(
                "`{}` cannot close `{}`, opened on line {line}",
                self.excerpt(span),
                open.element.name
            );
            let help = "names must be equal byte for byte; a `<` that is text is written `\\<`";
            return Err(self.error(span, message).with_help(help));
        }
        self.at = from + length + 1;
        self.finish(open, tag)
    }

    /// Puts a closed element where it belongs; `text_end` is where its content ended.
    fn finish(&mut self, open: Open, text_end: usize) -> Result<(), Diagnostic> {
        let Open { mut element, visible, text_from } = open;
        element.span.end = Span::of(0, self.at).end;
        element.content_span = Span::of(text_from, text_end.max(text_from));
        let content = std::mem::take(&mut element.content);
        element.content = self.replace(content, element.content_span, visible)?;
        if element.is("var") {
            return self.define(&element);
        }
        match self.open.last_mut() {
            Some(parent) => {
                parent.element.content = Vec::new();
                parent.element.children.push(element);
            }
            None => self.roots.push(element),
        }
        Ok(())
    }

    fn define(&mut self, element: &Element) -> Result<(), Diagnostic> {
        let Some(name) = element.attribute("name").filter(|a| !a.value.is_empty()) else {
            let message = "`var` needs a `name` attribute".to_owned();
            return Err(self.error(element.name_span, message));
        };
        if name.value.len() > 255 {
            let message = "the variable's name is longer than 255 bytes".to_owned();
            return Err(self.error(name.value_span, message));
        }
        self.variables.define(&name.value, element.content.clone());
        Ok(())
    }

    fn replace(&mut self, text: Vec<u8>, span: Span, visible: usize) -> Result<Vec<u8>, Diagnostic> {
        self.variables.apply(text, visible).map_err(|failure| {
            let start = span.start as usize;
            match failure {
                Failure::Unknown { name, at } => {
                    let message = format!("unknown variable `${}`", String::from_utf8_lossy(&name));
                    // Comments inside the text shift offsets; then the whole text is marked.
                    let exact = Span::of(start + at, start + at + 1 + name.len());
                    let place = if self.source.slice(exact).get(1..) == Some(&name[..]) {
                        exact
                    } else {
                        span
                    };
                    self.error(place, message)
                        .with_help("define it with `<var name=\"…\">` further up; a file that defines variables uses every `$name`")
                }
                Failure::TooLarge { .. } => {
                    self.error(span, "overflow: variables add too much text".to_owned())
                }
            }
        })
    }

    fn open_tag(&mut self, tag: usize) -> Result<(), Diagnostic> {
        let from = tag + 1;
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'/' | b'>' | b'<');
        let length = self.text[from..].iter().position(ends);
        let end = length.map_or(self.text.len(), |n| from + n);
        let name_span = Span::of(from, end);
        self.check_length(name_span, "name")?;
        if !self.text.get(from).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            let span = Span::of(tag, from);
            let help = "a `<` that is text is written `\\<`";
            return Err(self.error(span, "`<` without the name of an element".to_owned()).with_help(help));
        }
        if self.open.len() >= MAX_DEPTH {
            let message = format!("overflow: elements are nested deeper than {MAX_DEPTH}");
            return Err(self.error(name_span, message));
        }
        self.at = end;
        let visible = self.variables.count();
        let mut element = Element {
            name: String::from_utf8_lossy(self.source.slice(name_span)).into_owned(),
            name_span,
            span: Span::of(tag, end),
            ..Element::default()
        };
        let is_empty = self.attributes(&mut element, visible)?;
        let open = Open { element, visible, text_from: self.at };
        if is_empty {
            return self.finish(open, self.at);
        }
        self.open.push(open);
        Ok(())
    }

    /// Reads attributes up to the end of the tag; `true` for `/>`.
    fn attributes(&mut self, element: &mut Element, visible: usize) -> Result<bool, Diagnostic> {
        loop {
            let blank = self.skip_blanks()?;
            match self.text.get(self.at) {
                Some(b'>') => {
                    self.at += 1;
                    return Ok(false);
                }
                Some(b'/') if self.text.get(self.at + 1) == Some(&b'>') => {
                    self.at += 2;
                    return Ok(true);
                }
                Some(b'/' | b'<' | b'=' | b'"' | b'\'') => {
                    let message = format!("unexpected `{}` in the tag", char::from(self.text[self.at]));
                    return Err(self.error(Span::of(self.at, self.at + 1), message));
                }
                None => {
                    let message = format!("the tag of `{}` has no `>`", element.name);
                    return Err(self.error(element.name_span, message));
                }
                Some(_) if !blank => {
                    let message = "a blank, `/` or `>` must follow the value".to_owned();
                    return Err(self.error(Span::of(self.at, self.at + 1), message));
                }
                Some(_) => {
                    let attribute = self.attribute(visible)?;
                    self.check_attribute(element, &attribute)?;
                    element.attributes.push(attribute);
                }
            }
        }
    }

    fn check_attribute(&self, element: &Element, new: &Attribute) -> Result<(), Diagnostic> {
        if element.attributes.iter().any(|a| a.name == new.name) {
            let message = format!("attribute `{}` is given twice", new.name);
            return Err(self.error(new.span, message));
        }
        if element.attributes.len() >= MAX_ATTRIBUTES {
            let message = format!("overflow: more than {MAX_ATTRIBUTES} attributes");
            return Err(self.error(new.span, message));
        }
        Ok(())
    }

    fn attribute(&mut self, visible: usize) -> Result<Attribute, Diagnostic> {
        let start = self.at;
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'=' | b'>' | b'/' | b'<' | b'"' | b'\'');
        let length = self.text[start..].iter().position(ends);
        self.at = length.map_or(self.text.len(), |n| start + n);
        let name_span = Span::of(start, self.at);
        self.check_length(name_span, "attribute")?;
        let name = String::from_utf8_lossy(self.source.slice(name_span)).into_owned();
        self.skip_blanks()?;
        if self.text.get(self.at) != Some(&b'=') {
            let message = format!("attribute `{name}` has no value");
            let help = format!("write `{name}=\"…\"`");
            return Err(self.error(name_span, message).with_help(help));
        }
        self.at += 1;
        self.skip_blanks()?;
        let Some(quote @ (b'"' | b'\'')) = self.text.get(self.at).copied() else {
            let message = format!("the value of attribute `{name}` is not in quotes");
            return Err(self.error(name_span, message));
        };
        let from = self.at + 1;
        let Some(length) = memchr::memchr(quote, &self.text[from..]) else {
            let message = format!("the value of attribute `{name}` has no closing quote");
            return Err(self.error(name_span, message));
        };
        let value_span = Span::of(from, from + length);
        self.check_length(value_span, "attribute")?;
        self.at = from + length + 1;
        let value = self.source.slice(value_span).to_vec();
        Ok(Attribute {
            name,
            value: self.replace(value, value_span, visible)?,
            span: Span::of(start, self.at),
            value_span,
        })
    }

    /// Passes blanks and comments inside a tag; says whether there were any.
    fn skip_blanks(&mut self) -> Result<bool, Diagnostic> {
        let start = self.at;
        loop {
            match self.text.get(self.at) {
                Some(b) if b.is_ascii_whitespace() => self.at += 1,
                Some(b'<') if self.text.get(self.at + 1) == Some(&b'!') => {
                    self.skip_comment(self.at)?;
                }
                _ => return Ok(self.at > start),
            }
        }
    }

    fn check_length(&self, span: Span, what: &str) -> Result<(), Diagnostic> {
        if (span.end - span.start) as usize > MAX_TEXT {
            let message = format!("overflow: the {what} is longer than {MAX_TEXT} bytes");
            return Err(self.error(span, message));
        }
        Ok(())
    }

    fn excerpt(&self, span: Span) -> String {
        let bytes = self.source.slice(span);
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
        let mut short: String = text.chars().take(40).collect();
        if short.len() < bytes.len() {
            short.push('…');
        }
        short
    }

    fn error(&self, span: Span, message: String) -> Diagnostic {
        // Names come from the file and may be as long as a text may be.
        let message = if message.len() > 400 { message.chars().take(400).collect() } else { message };
        Diagnostic::error(self.source, span, message)
    }
}

#[cfg(test)]
mod tests;
