//! File name patterns of `<location>` and `<exclude>`: shell wildcards and strftime. Matching is byte-wise and pure;
//! [`expand`] alone reads directories, never more than [`MAX_ENTRIES`] names of each.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use tld_model::LocalTime;

/// Names looked at per directory; a directory with more is cut there.
pub(crate) const MAX_ENTRIES: usize = 100_000;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Whether a location is a wildcard pattern.
pub(crate) fn is_wild(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Whether one path component matches; a leading dot must be written out, as in a shell.
pub(crate) fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    // Only the last star is ever retried, which keeps hostile names linear times the pattern.
    let (mut p, mut n) = (pattern, name);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match p.split_first() {
            Some((b'*', rest)) => {
                retry = Some((rest, n));
                p = rest;
                continue;
            }
            None if n.is_empty() => return true,
            None => {}
            Some(_) => {
                if let Some((byte, after)) = n.split_first()
                    && let Some(rest) = matches_one(p, *byte)
                {
                    p = rest;
                    n = after;
                    continue;
                }
            }
        }
        let Some((after_star, from)) = retry else { return false };
        let Some((_, shorter)) = from.split_first() else { return false };
        retry = Some((after_star, shorter));
        p = after_star;
        n = shorter;
    }
}

/// The pattern behind its first element if that element accepts `byte`.
fn matches_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => match class(rest, byte) {
            Some((true, rest)) => Some(rest),
            Some((false, _)) => None,
            // Without its closing bracket it is an ordinary character.
            None => (byte == b'[').then_some(rest),
        },
        b'\\' => match rest.split_first() {
            Some((literal, rest)) => (*literal == byte).then_some(rest),
            None => (byte == b'\\').then_some(rest),
        },
        literal => (*literal == byte).then_some(rest),
    }
}

fn class(mut pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    if negated {
        pattern = pattern.get(1..)?;
    }
    let mut found = false;
    let mut first = true;
    loop {
        let (low, rest) = pattern.split_first()?;
        if *low == b']' && !first {
            return Some((found != negated, rest));
        }
        first = false;
        if let [b'-', high, after @ ..] = rest
            && *high != b']'
        {
            found |= (*low..=*high).contains(&byte);
            pattern = after;
        } else {
            found |= *low == byte;
            pattern = rest;
        }
    }
}

/// Whether a whole path matches, component by component.
pub(crate) fn matches_path(pattern: &Path, path: &Path) -> bool {
    let (mut patterns, mut parts) = (pattern.components(), path.components());
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(p), Some(n)) if matches_name(p.as_os_str().as_bytes(), n.as_os_str().as_bytes()) => {}
            _ => return false,
        }
    }
}

/// What a wildcard location stands for now.
#[derive(Debug, Default)]
pub(crate) struct Expansion {
    /// Existing paths, sorted, at most the asked number.
    pub(crate) paths: Vec<PathBuf>,
    /// Directories whose change can alter the answer.
    pub(crate) directories: Vec<PathBuf>,
}

/// All existing paths that match an absolute pattern.
pub(crate) fn expand(pattern: &Path, limit: usize) -> Expansion {
    let mut found = vec![PathBuf::new()];
    let mut directories = Vec::new();
    for component in pattern.components() {
        let name = component.as_os_str();
        if !matches!(component, Component::Normal(_)) || !is_wild(name.as_bytes()) {
            for path in &mut found {
                path.push(name);
            }
            continue;
        }
        let mut next = Vec::new();
        for directory in found {
            list(&directory, name, limit, &mut next);
            directories.push(directory);
        }
        found = next;
    }
    found.retain(|path| path.exists());
    found.sort();
    found.truncate(limit);
    Expansion { paths: found, directories }
}

fn list(directory: &Path, pattern: &OsStr, limit: usize, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        if into.len() >= limit.saturating_mul(4) {
            return;
        }
        let name = entry.file_name();
        if matches_name(pattern.as_bytes(), name.as_bytes()) {
            into.push(directory.join(name));
        }
    }
}

/// A strftime pattern filled in; unknown conversions stand as they are.
pub(crate) fn strftime(pattern: &str, at: &LocalTime) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let month = MONTHS.get(usize::from(at.month).wrapping_sub(1)).copied().unwrap_or("");
        let day = DAYS.get(usize::from(at.weekday)).copied().unwrap_or("");
        let written = match chars.next() {
            Some('Y') => write!(out, "{:04}", at.year),
            Some('y') => write!(out, "{:02}", at.year.rem_euclid(100)),
            Some('C') => write!(out, "{:02}", at.year.div_euclid(100)),
            Some('m') => write!(out, "{:02}", at.month),
            Some('d') => write!(out, "{:02}", at.day),
            Some('e') => write!(out, "{:2}", at.day),
            Some('H') => write!(out, "{:02}", at.hour),
            Some('M') => write!(out, "{:02}", at.minute),
            Some('S') => write!(out, "{:02}", at.second),
            Some('j') => write!(out, "{:03}", day_of_year(at)),
            Some('F') => write!(out, "{:04}-{:02}-{:02}", at.year, at.month, at.day),
            Some('D') => write!(out, "{:02}/{:02}/{:02}", at.month, at.day, at.year.rem_euclid(100)),
            Some('T') => write!(out, "{:02}:{:02}:{:02}", at.hour, at.minute, at.second),
            Some('B') => write!(out, "{month}"),
            Some('b' | 'h') => write!(out, "{}", month.get(..3).unwrap_or("")),
            Some('A') => write!(out, "{day}"),
            Some('a') => write!(out, "{}", day.get(..3).unwrap_or("")),
            Some('u') => write!(out, "{}", if at.weekday == 0 { 7 } else { at.weekday }),
            Some('w') => write!(out, "{}", at.weekday),
            Some('%') | None => write!(out, "%"),
            Some(other) => write!(out, "%{other}"),
        };
        debug_assert!(written.is_ok(), "writing to a string");
    }
    out
}

fn day_of_year(at: &LocalTime) -> u16 {
    let leap = (at.year % 4 == 0 && at.year % 100 != 0) || at.year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before: u16 = lengths.iter().take(usize::from(at.month).saturating_sub(1)).sum();
    before + u16::from(at.day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tld_model::{Timestamp, Zone};

    use super::*;

    fn name(pattern: &str, text: &str) -> bool {
        matches_name(pattern.as_bytes(), text.as_bytes())
    }

    #[test]
    fn wildcards_mean_what_they_mean_in_a_shell() {
        assert!(name("*.log", "auth.log"));
        assert!(!name("*.log", "auth.log.1"));
        assert!(name("a?c", "abc"));
        assert!(name("[a-c]x[!0-9]", "bxz"));
        assert!(!name("[a-c]x[!0-9]", "bx7"));
        assert!(name("[]]", "]"));
        assert!(name("[x", "[x"));
        assert!(name("*a*b*", "xxaxxbxx"));
        assert!(name(r"\*", "*"));
        assert!(!name(r"\*", "x"));
    }

    #[test]
    fn a_leading_dot_is_never_matched_by_a_wildcard() {
        assert!(!name("*", ".hidden"));
        assert!(name(".*", ".hidden"));
    }

    #[test]
    fn a_star_does_not_cross_a_directory() {
        assert!(matches_path(Path::new("/var/*/x.log"), Path::new("/var/a/x.log")));
        assert!(!matches_path(Path::new("/var/*.log"), Path::new("/var/a/x.log")));
    }

    #[test]
    fn expansion_finds_files_below_wild_directories() {
        let home = tempfile::tempdir().unwrap();
        for part in ["a", "b"] {
            std::fs::create_dir(home.path().join(part)).unwrap();
            std::fs::File::create(home.path().join(part).join("x.log")).unwrap();
        }
        let found = expand(&home.path().join("*/x.log"), 10);
        assert_eq!(found.paths, [home.path().join("a/x.log"), home.path().join("b/x.log")]);
        assert_eq!(found.directories, [home.path().to_path_buf()]);
        assert_eq!(expand(&home.path().join("*/*.log"), 1).paths.len(), 1);
    }

    #[test]
    fn strftime_fills_in_the_calendar() {
        let at = Zone::utc().local(Timestamp::from_secs(1_709_210_096));
        assert_eq!(
            strftime("/l/%Y-%m-%d_%H%M%S.%j.%b.%a.%%.%Q", &at),
            "/l/2024-02-29_123456.060.Feb.Thu.%.%Q"
        );
    }

    proptest! {
        #[test]
        fn hostile_patterns_and_names_never_panic(p in proptest::collection::vec(any::<u8>(), 0..40), n in proptest::collection::vec(any::<u8>(), 0..40)) {
            matches_name(&p, &n);
        }

        #[test]
        fn a_name_matches_itself(n in "[a-z.0-9_-]{1,20}") {
            prop_assert!(name(&n, &n));
        }
    }
}
