//! Lines of `logs/active-responses.log` in the contract's form (active-response 10.1), written by a thread of its own
//! so that a slow disk delays no block. All lines of one response go out in one append.
//! Invariant: what a peer sent can neither end a line early nor start one.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tld_model::{Timestamp, Zone};

use crate::LogFn;

/// The lines of one response.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    stamp: String,
    program: &'a str,
    text: String,
}

impl<'a> Lines<'a> {
    /// Lines of `program` (`active-response/bin/<file>`) at one moment.
    pub(crate) fn new(program: &'a str, zone: &Zone, at: Timestamp) -> Self {
        Self { stamp: zone.local(at).log_stamp().to_string(), program, text: String::new() }
    }

    /// One line of text.
    pub(crate) fn say(&mut self, text: &str) {
        let shown = escape(text);
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{} {}: {shown}", self.stamp, self.program);
    }

    /// A received protocol message: logged with its own newline, therefore followed by an empty line.
    pub(crate) fn received(&mut self, message: &str) {
        self.say(message);
        self.text.push('\n');
    }

    /// The bytes to append.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// Control characters as `\xNN`, so that one text stays one line and no terminal obeys it.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            let _ = write!(shown, "\\x{:02x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The thread that appends.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it for the log below `home`.
    pub(crate) fn start(home: &Path, report: LogFn) -> std::io::Result<Self> {
        let path = home.join(PATH);
        let (queue, texts) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("responses-log".into())
            .spawn(move || run(&path, &texts, &report))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Hands over the lines of one response. Waits when the disk is thousands of responses behind: evidence of
    /// what was done is not dropped.
    pub(crate) fn append(&self, text: String) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(text);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(path: &Path, texts: &Receiver<String>, report: &LogFn) {
    let mut failing = false;
    while let Ok(mut text) = texts.recv() {
        while text.len() < BATCH {
            let Ok(more) = texts.try_recv() else { break };
            text.push_str(&more);
        }
        // Opened per append: the file may be rotated away at any time.
        match append(path, &text) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                report(&format!(
                    "cannot write `{}`: {error}; its lines are lost until it can",
                    path.display()
                ));
            }
            Err(_) => {}
        }
    }
}

/// One append of whole lines.
pub(crate) fn append(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().append(true).create(true).mode(0o660).open(path)?.write_all(text.as_bytes())
}

/// Path of the log below the home.
pub(crate) const PATH: &str = "logs/active-responses.log";
const QUEUE: usize = 16_384;
const BATCH: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_message_is_followed_by_an_empty_line() {
        let mut lines =
            Lines::new("active-response/bin/x", &Zone::utc(), Timestamp::from_secs(1_772_446_531));
        lines.say("Starting");
        lines.received("{}");
        lines.say("Ended");
        assert_eq!(
            lines.finish(),
            "2026/03/02 10:15:31 active-response/bin/x: Starting\n\
             2026/03/02 10:15:31 active-response/bin/x: {}\n\n\
             2026/03/02 10:15:31 active-response/bin/x: Ended\n"
        );
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(escape("a\nb\u{1b}[2J\u{85}"), "a\\x0ab\\x1b[2J\\x85");
    }
}
