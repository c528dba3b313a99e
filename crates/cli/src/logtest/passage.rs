//! Lines of decoder and rule files, so that an explanation can show the condition itself and not only its place.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use tld_xml::Source;

/// Longest file that is looked into.
const LIMIT: usize = 16 << 20;
/// Characters of a line that are shown.
const WIDTH: usize = 76;
/// Lines behind a decoder's first one in which its elements are looked for.
const REACH: usize = 200;

/// Files by the name that rules and decoders give.
#[derive(Debug)]
pub(super) struct Passages {
    home: Option<PathBuf>,
    read: RefCell<HashMap<String, Rc<[String]>>>,
}

impl Passages {
    /// Files below a home, read when first asked for.
    pub(super) fn of_home(home: PathBuf) -> Self {
        Self { home: Some(home), read: RefCell::default() }
    }

    /// Files that are in memory.
    pub(super) fn of_sources(sources: impl Iterator<Item = Source>) -> Self {
        let read = sources.map(|source| (source.name.to_string(), lines(&source.text))).collect();
        Self { home: None, read: RefCell::new(read) }
    }

    /// A line of a file, trimmed and short; empty when the file does not have it any more.
    pub(super) fn line(&self, file: &str, line: u32) -> String {
        let lines = self.lines(file);
        let text = usize::try_from(line).ok().and_then(|line| lines.get(line.checked_sub(1)?));
        text.map(|text| shortened(text)).unwrap_or_default()
    }

    /// The line of an element of the decoder that starts at `line`.
    pub(super) fn element(&self, file: &str, line: u32, element: &str) -> Option<u32> {
        let lines = self.lines(file);
        let start = usize::try_from(line).ok()?.checked_sub(1)?;
        let tag = format!("<{element}");
        for (text, number) in lines.iter().skip(start).take(REACH).zip(line..) {
            if text.contains(&tag) {
                return Some(number);
            }
            if text.contains("</decoder") {
                return None;
            }
        }
        None
    }

    fn lines(&self, file: &str) -> Rc<[String]> {
        if let Some(known) = self.read.borrow().get(file) {
            return Rc::clone(known);
        }
        let text =
            self.home.as_ref().and_then(|home| tld_sys::durable::read_bounded(&home.join(file), LIMIT).ok());
        let lines = lines(&text.unwrap_or_default());
        self.read.borrow_mut().insert(file.to_owned(), Rc::clone(&lines));
        lines
    }
}

fn lines(text: &[u8]) -> Rc<[String]> {
    String::from_utf8_lossy(text).lines().map(str::to_owned).collect()
}

fn shortened(text: &str) -> String {
    let text = super::printable(text.trim());
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
