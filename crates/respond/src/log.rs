//! Lines of `logs/active-responses.log` in the contract's form (active-response 10.1), written by a thread of its own
//! so that a slow disk delays no block. All lines of one response go out in one append.
//! Invariant: what a peer sent can neither end a line early nor start one.

mod rotation;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use tld_model::{Timestamp, Zone};

pub use rotation::Rotation;
pub(crate) use rotation::{Keeper, keep_default};

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
        for part in [&self.stamp, " ", self.program, ": "] {
            self.text.push_str(part);
        }
        escape_into(&mut self.text, text);
        self.text.push('\n');
    }

    /// Makes room for so many bytes.
    pub(crate) fn reserve(&mut self, length: usize) {
        self.text.reserve(length);
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
    escape_into(&mut shown, text);
    shown
}

fn escape_into(shown: &mut String, text: &str) {
    // In UTF-8 every control character begins with one of these bytes; nearly no text has one.
    if !text.bytes().any(|byte| byte < b' ' || byte == 0x7f || byte == 0xc2) {
        return shown.push_str(text);
    }
    for character in text.chars() {
        if character.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{:02x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
}

/// Puts lines into words.
pub(crate) type Render = Box<dyn FnOnce() -> String + Send>;

/// What waits to be appended.
enum Text {
    Ready(String),
    Later(usize, Render),
}

impl Text {
    /// How much of what may wait it takes.
    fn length(&self) -> usize {
        match self {
            Self::Ready(text) => text.len(),
            Self::Later(length, _) => *length,
        }
    }

    fn render(self) -> String {
        match self {
            Self::Ready(text) => text,
            Self::Later(_, render) => render(),
        }
    }
}

/// The thread that appends.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<SyncSender<Text>>,
    waiting: Arc<Waiting>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it for the log below `home`.
    pub(crate) fn start(home: &Path, report: LogFn, keeper: Keeper) -> std::io::Result<Self> {
        let path = home.join(PATH);
        let (queue, texts) = sync_channel(QUEUE);
        let waiting = Arc::new(Waiting::default());
        let shared = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("responses-log".into())
            .spawn(move || run(&path, &texts, &shared, &report, &keeper))?;
        Ok(Self { queue: Some(queue), waiting, thread: Some(thread) })
    }

    /// Hands over the lines of one response. Waits when the disk is thousands of responses or many megabytes behind:
    /// evidence of what was done is not dropped.
    pub(crate) fn append(&self, text: String) {
        self.put(Text::Ready(text));
    }

    /// The same for lines of about `length` bytes that are yet to be put into words.
    pub(crate) fn append_later(&self, length: usize, render: Render) {
        self.put(Text::Later(length, render));
    }

    fn put(&self, text: Text) {
        if let Some(queue) = &self.queue {
            self.waiting.add(text.length());
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

/// Bytes handed over and not yet written: a response may have a megabyte of lines, so counting texts bounds nothing.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Mutex<usize>,
    fewer: Condvar,
}

impl Waiting {
    /// Waits for room; a text longer than all of it is taken alone.
    fn add(&self, length: usize) {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |bytes: &mut usize| *bytes > 0 && *bytes + length > MOST_WAITING;
        let mut bytes = self.fewer.wait_while(bytes, full).unwrap_or_else(PoisonError::into_inner);
        *bytes += length;
    }

    fn remove(&self, length: usize) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes = bytes.saturating_sub(length);
        self.fewer.notify_all();
    }
}

fn run(path: &Path, texts: &Receiver<Text>, waiting: &Waiting, report: &LogFn, keeper: &Keeper) {
    let mut failing = false;
    while let Ok(first) = texts.recv() {
        let mut length = first.length();
        let mut text = first.render();
        while text.len() < BATCH {
            let Ok(more) = texts.try_recv() else { break };
            length += more.length();
            text.push_str(&more.render());
        }
        if let Err(error) = keeper.rotate() {
            report(&format!("cannot rotate `{}`: {error}", path.display()));
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
        waiting.remove(length);
    }
}

/// One append of whole lines. The directory may belong to an unprivileged user: what it put there to lead root
/// elsewhere, or to make it wait, is refused.
pub(crate) fn append(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o660).custom_flags(flags.bits().cast_signed());
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    file.write_all(text.as_bytes())
}

/// Path of the log below the home.
pub(crate) const PATH: &str = "logs/active-responses.log";
const QUEUE: usize = 16_384;
const BATCH: usize = 1 << 20;
/// Bytes that may wait to be written.
const MOST_WAITING: usize = 32 << 20;

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
    fn a_link_or_a_pipe_in_place_of_the_log_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link, pipe) =
            (dir.path().join("target"), dir.path().join("link"), dir.path().join("pipe"));
        tld_sys::durable::replace(&target, b"", 0o600).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(append(&link, "x\n").is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(append(&pipe, "x\n").is_err());
        append(&target, "x\n").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"x\n");
    }

    #[test]
    fn bytes_that_wait_are_bounded_and_a_longer_text_still_gets_through() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        let clock = Arc::new(tld_sys::clock::SystemClock);
        let keeper = Keeper::new(dir.path(), Rotation::default(), &Zone::utc(), clock);
        let writer = Writer::start(dir.path(), Arc::new(|_: &str| {}), keeper).unwrap();
        writer.append("a".repeat(MOST_WAITING + 1));
        writer.append("b".repeat(10));
        drop(writer);
        assert_eq!(std::fs::metadata(dir.path().join(PATH)).unwrap().len() as usize, MOST_WAITING + 11);
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(escape("a\nb\u{1b}[2J\u{85}"), "a\\x0ab\\x1b[2J\\x85");
    }
}
