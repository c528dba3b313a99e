//! `etc/shared/ar.conf`: response names, their executables and timeouts (active-response 2.6 and 6.4).
//!
//! Reading is separate from finding: [`Entries::parse`] is pure. Invariant: entries are bounded in number and length,
//! whatever the manager sends.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tld_respond::ossec_log::Level;

/// Below the home.
pub(crate) const PATH: &str = "etc/shared/ar.conf";
const BIN: &str = "active-response/bin";
const FILE: usize = 4 << 20;
const MOST_ENTRIES: usize = 20_000;
const MOST_NOTES: usize = 100;
const NAME: usize = 256;
const EXECUTABLE: usize = 255;

/// One line: what may run under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File in `active-response/bin`.
    pub executable: String,
    /// Seconds.
    pub timeout_secs: u64,
}

/// Something to say about the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Number in the contract's catalogue, if it has one.
    pub code: Option<u16>,
    /// Line number, from 1; 0 = the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

/// The file's content.
#[derive(Debug, Default)]
pub struct Entries {
    by_name: HashMap<String, Vec<Entry>>,
    /// Problems in the order of the file.
    pub notes: Vec<Note>,
}

impl Entries {
    /// Reads the text. Lines that cannot be read are noted and passed over.
    pub fn parse(text: &[u8]) -> Self {
        let mut entries = Self::default();
        let mut count = 0;
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
            if line.is_empty() {
                continue;
            }
            if count == MOST_ENTRIES {
                entries.note(None, at + 1, format!("more than {MOST_ENTRIES} entries, the rest is ignored"));
                break;
            }
            if let Some((name, entry)) = entries.line(&line, at + 1) {
                count += 1;
                entries.by_name.entry(name).or_default().push(entry);
            }
        }
        entries.find_collisions();
        entries
    }

    fn line(&mut self, line: &str, at: usize) -> Option<(String, Entry)> {
        let mut parts = line.splitn(3, " - ");
        let (Some(name), Some(executable), Some(timeout)) = (parts.next(), parts.next(), parts.next()) else {
            self.note(Some(1313), at, "not of the form `name - executable - timeout`".into());
            return None;
        };
        if name.is_empty() || name.starts_with('!') {
            self.note(Some(1313), at, "a name may not be empty nor begin with `!`".into());
            return None;
        }
        let mut name = name.to_owned();
        if name.len() > NAME {
            self.note(Some(1318), at, format!("the name is cut after {NAME} bytes"));
            name.truncate(name.floor_char_boundary(NAME));
        }
        if !is_bare(executable) || executable.len() > EXECUTABLE {
            self.note(Some(1313), at, "the executable is not the bare name of a file".into());
            return None;
        }
        Some((name, Entry { executable: executable.to_owned(), timeout_secs: self.timeout(timeout, at) }))
    }

    fn timeout(&mut self, text: &str, at: usize) -> u64 {
        let text = text.trim_start();
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let digits = &digits[..end];
        if digits.is_empty() {
            self.note(Some(1313), at, "the timeout is no number and counts as 0: without undo".into());
            return 0;
        }
        if negative {
            self.note(None, at, "a negative timeout counts as one second".into());
            return 1;
        }
        digits.parse().unwrap_or(u64::MAX).min(u64::from(u32::MAX))
    }

    /// Name and timeout stand without separator: `drop` for 10 s and `drop1` for 0 s are both `drop10`.
    fn find_collisions(&mut self) {
        let mut collided: Vec<_> = self
            .by_name
            .iter()
            .filter(|(_, lines)| lines.iter().any(|one| one.timeout_secs != lines[0].timeout_secs))
            .map(|(name, lines)| {
                let executables: Vec<_> = lines.iter().map(|one| one.executable.as_str()).collect();
                format!(
                    "two responses are both named `{}` ({}): the first one's timeout holds; rename a command",
                    shown(name),
                    executables.join(", ")
                )
            })
            .collect();
        collided.sort();
        for text in collided {
            self.note(None, 0, text);
        }
    }

    fn note(&mut self, code: Option<u16>, line: usize, text: String) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(Note { code, line, text });
        }
    }

    /// The executable and timeout of a name: the first line's timeout, and the first executable that `exists`.
    pub fn find(&self, name: &str, exists: impl Fn(&str) -> bool) -> Option<Found> {
        let lines = self.by_name.get(name)?;
        let first = lines.first()?;
        let present = lines.iter().find(|one| exists(&one.executable));
        Some(Found {
            executable: present.unwrap_or(first).executable.clone(),
            timeout_secs: first.timeout_secs,
            present: present.is_some(),
        })
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// What a name means on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// File in `active-response/bin`.
    pub executable: String,
    /// Seconds.
    pub timeout_secs: u64,
    /// Whether the file is there.
    pub present: bool,
}

/// A name of a file directly in the directory of executables.
pub(crate) fn is_bare(name: &str) -> bool {
    let special = name.is_empty() || name == "." || name == "..";
    !special && !name.contains(['/', '\\']) && !name.chars().any(char::is_control)
}

/// A peer's text, short enough for a log.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    if text.len() <= MOST {
        text.to_owned()
    } else {
        format!("{}…", &text[..text.floor_char_boundary(MOST)])
    }
}

/// The file's state when it was read.
type Stamp = (u64, u64, i64, i64, i64, i64);

/// The table as it is at each request: read again when the file changed.
#[derive(Debug)]
pub(crate) struct Table {
    home: PathBuf,
    seen: Option<Stamp>,
    entries: Entries,
}

impl Table {
    pub(crate) fn new(home: &Path) -> Self {
        Self { home: home.to_path_buf(), seen: None, entries: Entries::default() }
    }

    /// Looks a name up in the present file.
    pub(crate) fn find(&mut self, name: &str, log: &dyn Fn(Level, &str)) -> Option<Found> {
        if let Err(error) = self.refresh(log) {
            // What was read before stays: the file is replaced while a manager writes it.
            log(Level::Error, &format!("(1103): cannot read `{PATH}`: {error}"));
        }
        let bin = self.home.join(BIN);
        self.entries.find(name, |executable| tld_config::executable::resolve(&bin, executable).is_ok())
    }

    fn refresh(&mut self, log: &dyn Fn(Level, &str)) -> io::Result<()> {
        let path = self.home.join(PATH);
        let meta = std::fs::metadata(&path)?;
        let stamp =
            (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        if self.seen == Some(stamp) {
            return Ok(());
        }
        self.entries = Entries::parse(&tld_sys::durable::read_bounded(&path, FILE)?);
        self.seen = Some(stamp);
        for note in &self.entries.notes {
            let code = note.code.map_or_else(String::new, |code| format!("({code}): "));
            let line = if note.line == 0 { String::new() } else { format!(":{}", note.line) };
            log(Level::Warning, &format!("{code}`{PATH}{line}`: {}", note.text));
        }
        log(Level::Debug, &format!("read `{PATH}`: {} names", self.entries.len()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "restart-ossec0 - restart-ossec.sh - 0\nrestart-ossec0 - restart-ossec.cmd - 0\n\
        restart-wazuh0 - restart-ossec.sh - 0\nrestart-wazuh0 - restart-ossec.cmd - 0\n\
        restart-wazuh0 - restart-wazuh - 0\nrestart-wazuh0 - restart-wazuh.exe - 0\n";

    fn found(executable: &str, timeout_secs: u64, present: bool) -> Option<Found> {
        Some(Found { executable: executable.into(), timeout_secs, present })
    }

    #[test]
    fn the_first_executable_that_is_there_runs_for_the_first_lines_time() {
        let text = format!("{HEADER}firewall-drop5 - firewall-drop - 5");
        let entries = Entries::parse(text.as_bytes());
        assert!(entries.notes.is_empty(), "{:?}", entries.notes);
        let there = |name: &str| ["restart-wazuh", "firewall-drop"].contains(&name);
        assert_eq!(entries.find("restart-wazuh0", there), found("restart-wazuh", 0, true));
        assert_eq!(entries.find("firewall-drop5", there), found("firewall-drop", 5, true));
        assert_eq!(entries.find("restart-ossec0", there), found("restart-ossec.sh", 0, false));
        assert_eq!(entries.find("firewall-drop", there), None);
    }

    #[test]
    fn lines_that_break_the_form_are_noted_with_their_number() {
        let long = "n".repeat(300);
        for (line, code, kept) in [
            ("!x - x - 0".to_owned(), Some(1313), 0),
            ("x - x".into(), Some(1313), 0),
            ("x-x-0".into(), Some(1313), 0),
            (" - x - 0".into(), Some(1313), 0),
            ("x - ../x - 0".into(), Some(1313), 0),
            ("x - a/../x - 0".into(), Some(1313), 0),
            ("x - .. - 0".into(), Some(1313), 0),
            ("x - x - soon".into(), Some(1313), 1),
            ("x - x - -5".into(), None, 1),
            (format!("{long} - x - 0"), Some(1318), 1),
        ] {
            let entries = Entries::parse(format!("good1 - good - 1\n{line}\n").as_bytes());
            assert_eq!(entries.notes.len(), 1, "{line}");
            assert_eq!((entries.notes[0].code, entries.notes[0].line), (code, 2), "{line}");
            assert_eq!(entries.len(), 1 + kept, "{line}");
        }
    }

    #[test]
    fn timeouts_are_the_leading_number() {
        for (text, secs) in
            [("600", 600), (" 7x", 7), ("0", 0), ("x", 0), ("-1", 1), ("99999999999999999999", 4_294_967_295)]
        {
            let entries = Entries::parse(format!("x - x - {text}").as_bytes());
            assert_eq!(entries.find("x", |_| true), found("x", secs, true), "{text}");
        }
    }

    #[test]
    fn a_collision_of_names_is_told_and_the_first_one_runs() {
        let entries = Entries::parse(b"drop10 - drop - 10\ndrop10 - drop1 - 0\n");
        assert!(entries.notes[0].text.contains("`drop10` (drop, drop1)"), "{:?}", entries.notes);
        assert_eq!(entries.find("drop10", |_| true), found("drop", 10, true));
    }

    #[test]
    fn more_than_the_references_65_names_are_fine_and_a_flood_is_cut() {
        let lines = |count: usize| (0..count).map(|n| format!("r{n} - x - 0\n")).collect::<String>();
        assert_eq!(Entries::parse(lines(1000).as_bytes()).len(), 1000);
        assert_eq!(Entries::parse(lines(MOST_ENTRIES + 5).as_bytes()).len(), MOST_ENTRIES);
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_lost_one_keeps_its_last_content() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("etc/shared")).unwrap();
        std::fs::create_dir_all(home.path().join(BIN)).unwrap();
        let write = |text: &str| {
            tld_sys::durable::replace(&home.path().join(PATH), text.as_bytes(), 0o640).unwrap();
        };
        let mut table = Table::new(home.path());
        let quiet = |_: Level, _: &str| {};
        write("a1 - a - 1");
        assert_eq!(table.find("a1", &quiet), found("a", 1, false));
        write("a1 - b - 2");
        assert_eq!(table.find("a1", &quiet), found("b", 2, false));
        std::fs::remove_file(home.path().join(PATH)).unwrap();
        let said = std::cell::RefCell::new(String::new());
        let answer = table.find("a1", &|_, text| said.borrow_mut().push_str(text));
        assert_eq!(answer, found("b", 2, false));
        assert!(said.borrow().contains("1103"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_table(text: Vec<u8>, name: String) {
            let _ = Entries::parse(&text).find(&name, |_| true);
        }

        #[test]
        fn no_entry_leaves_the_directory(executable in "[a./\\\\ -]{0,12}") {
            let entries = Entries::parse(format!("x - {executable} - 0").as_bytes());
            if let Some(found) = entries.find("x", |_| true) {
                assert!(is_bare(&found.executable));
            }
        }
    }
}
