//! Formats that join several lines: a fixed number, up to an expression, or by audit record id.

use std::time::Duration;

use super::{Format, append, find};

/// `multi-line:N`.
#[derive(Debug)]
pub(crate) struct Count {
    wanted: usize,
    seen: usize,
    text: Vec<u8>,
}

impl Count {
    /// Joins `wanted` lines, at least one.
    pub(crate) fn new(wanted: usize) -> Self {
        Self { wanted: wanted.max(1), seen: 0, text: Vec::new() }
    }
}

impl Format for Count {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        if self.seen > 0 {
            append(&mut self.text, b" ");
        }
        append(&mut self.text, line);
        self.seen += 1;
        if self.seen >= self.wanted {
            self.flush(out);
        }
    }

    fn pending(&self) -> bool {
        self.seen > 0
    }

    fn flush(&mut self, out: &mut Vec<Vec<u8>>) {
        if self.seen > 0 {
            out.push(std::mem::take(&mut self.text));
            self.seen = 0;
        }
    }
}

/// Which line the expression of `multi-line-regex` recognises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchAt {
    /// The first line of a message.
    Start,
    /// The last line of a message.
    End,
    /// The whole collected text.
    All,
}

/// What stands between the joined lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newlines {
    /// The newline itself.
    Keep,
    /// Nothing.
    Remove,
    /// This byte.
    Replace(u8),
}

/// A test of a text.
pub(crate) type Matcher = Box<dyn Fn(&[u8]) -> bool + Send>;

/// `multi-line-regex`.
pub(crate) struct Delimited {
    matcher: Matcher,
    at: MatchAt,
    newlines: Newlines,
    timeout: Duration,
    // Newlines stay in while collecting: `all` is tested on the text as it stood in the file.
    text: Option<Vec<u8>>,
}

impl Delimited {
    /// Collects lines until `matcher` says that a message is complete.
    pub(crate) fn new(matcher: Matcher, at: MatchAt, newlines: Newlines, timeout: Duration) -> Self {
        Self { matcher, at, newlines, timeout, text: None }
    }

    fn collect(&mut self, line: &[u8]) {
        match &mut self.text {
            None => self.text = Some(line.to_vec()),
            Some(text) => {
                append(text, b"\n");
                append(text, line);
            }
        }
    }
}

impl Format for Delimited {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        match self.at {
            MatchAt::Start => {
                if (self.matcher)(line) {
                    self.flush(out);
                }
                self.collect(line);
            }
            MatchAt::End => {
                self.collect(line);
                if (self.matcher)(line) {
                    self.flush(out);
                }
            }
            MatchAt::All => {
                self.collect(line);
                if self.text.as_deref().is_some_and(|text| (self.matcher)(text)) {
                    self.flush(out);
                }
            }
        }
    }

    fn pending(&self) -> bool {
        self.text.is_some()
    }

    fn flush(&mut self, out: &mut Vec<Vec<u8>>) {
        let Some(mut text) = self.text.take() else { return };
        match self.newlines {
            Newlines::Keep => {}
            Newlines::Remove => text.retain(|byte| *byte != b'\n'),
            Newlines::Replace(with) => {
                for byte in text.iter_mut().filter(|byte| **byte == b'\n') {
                    *byte = with;
                }
            }
        }
        out.push(text);
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.timeout)
    }
}

const AUDIT_LINES: usize = 64;

/// `audit`: the records of one event, recognised by their common id, become one message.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    id: Vec<u8>,
    lines: usize,
    text: Vec<u8>,
}

fn audit_id(line: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b" msg=audit(";
    find(line, b"type=")?;
    let after = line.get(find(line, MARK)? + MARK.len()..)?;
    after.get(..find(after, b"):")?)
}

impl Format for Audit {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        let Some(id) = audit_id(line) else { return };
        if self.lines > 0 && (self.id != id || self.lines >= AUDIT_LINES) {
            self.flush(out);
        }
        if self.lines == 0 {
            self.id = id.to_vec();
        } else {
            append(&mut self.text, b" ");
        }
        append(&mut self.text, line);
        self.lines += 1;
    }

    fn pending(&self) -> bool {
        self.lines > 0
    }

    fn flush(&mut self, out: &mut Vec<Vec<u8>>) {
        if self.lines > 0 {
            out.push(std::mem::take(&mut self.text));
            self.lines = 0;
        }
    }

    /// auditd writes the records of an event in one burst; an end mark is not always among them.
    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}
