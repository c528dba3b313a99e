//! Shared configuration: the bundle `merged.mg`, its way across the wire, and `ar.conf` inside it.
//! Invariant: a file name that leaves here never climbs out of a directory.

use std::fmt::Write as _;

use memchr::memchr;
use sha2::{Digest, Sha256};

/// Largest bundle that is read or built.
pub const BUNDLE_LIMIT: usize = 64 * 1024 * 1024;
/// Most files in a bundle.
pub const FILES_LIMIT: usize = 10_000;
/// Largest chunk of a file in one message.
pub const CHUNK: usize = 900;

const CONTROL: &[u8] = b"#!-";
const NAME_LIMIT: usize = 4_096;

/// Why a bundle is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// A line that starts a file has no size, no name, or a size beyond the end.
    #[error("the entry `{0}` is malformed")]
    Entry(String),
    /// A name that leads elsewhere.
    #[error("the file name `{0}` leads out of its directory")]
    Name(String),
    /// Over [`BUNDLE_LIMIT`].
    #[error("the bundle has {0} bytes")]
    Size(usize),
    /// Over [`FILES_LIMIT`].
    #[error("the bundle has more than {FILES_LIMIT} files")]
    Files,
    /// The channel carries text only.
    #[error("the bundle has a NUL byte, which the channel cannot carry")]
    Binary,
    /// Its first bytes would be taken for a control message.
    #[error("the bundle starts like a control message")]
    Start,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Relative, with slashes.
    pub name: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
}

/// Whether a relative name stays below the directory that it is joined to, on every system.
pub fn is_safe_name(name: &str) -> bool {
    let part_fits = |part: &str| !part.is_empty() && part != "." && !part.contains("..");
    (1..=NAME_LIMIT).contains(&name.len())
        && name.split('/').all(part_fits)
        && !name.contains(['\\', ':'])
        && !name.contains(char::is_control)
}

/// Builds a bundle. `head` is the group's name, or the hash of several; files stand in the given order (`ar.conf` is
/// to be the first).
///
/// # Errors
/// When a name is not safe or the whole is too large.
pub fn build(head: &str, files: &[Entry<'_>]) -> Result<Vec<u8>, BundleError> {
    if files.len() > FILES_LIMIT {
        return Err(BundleError::Files);
    }
    let mut bundle = format!("#{head}\n").into_bytes();
    for file in files {
        if !is_safe_name(file.name) {
            return Err(BundleError::Name(file.name.into()));
        }
        bundle.extend_from_slice(format!("!{} {}\n", file.content.len(), file.name).as_bytes());
        bundle.extend_from_slice(file.content);
        if bundle.len() > BUNDLE_LIMIT {
            return Err(BundleError::Size(bundle.len()));
        }
    }
    Ok(bundle)
}

/// Reads a bundle. Lines that start no file are skipped between files.
///
/// # Errors
/// When an entry is malformed, names an unsafe file, or a limit is passed; nothing of the bundle should be used then.
pub fn parse(bundle: &[u8]) -> Result<Vec<Entry<'_>>, BundleError> {
    if bundle.len() > BUNDLE_LIMIT {
        return Err(BundleError::Size(bundle.len()));
    }
    let mut files = Vec::new();
    let mut rest = bundle;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, behind) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        rest = behind;
        let Some(entry) = line.strip_prefix(b"!") else { continue };
        let bad = || BundleError::Entry(String::from_utf8_lossy(line.get(..80).unwrap_or(line)).into_owned());
        let (size, name) =
            str::from_utf8(entry).ok().and_then(|text| text.split_once(' ')).ok_or_else(bad)?;
        let digits = (1..=9).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_digit());
        let size: usize = digits.then(|| size.parse().ok()).flatten().ok_or_else(bad)?;
        if !is_safe_name(name) {
            return Err(BundleError::Name(name.chars().take(80).collect()));
        }
        let (content, behind) = rest.split_at_checked(size).ok_or_else(bad)?;
        rest = behind;
        if files.len() == FILES_LIMIT {
            return Err(BundleError::Files);
        }
        files.push(Entry { name, content });
    }
    Ok(files)
}

/// The files of an agent in several groups: later groups win, but every group's `agent.conf` counts, each behind a
/// comment that names its source. The order is that of first appearance.
pub fn combine(groups: &[(&str, Vec<Entry<'_>>)]) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (group, entries) in groups {
        for entry in entries {
            let known = files.iter_mut().find(|(name, _)| name == entry.name);
            let mut content = Vec::new();
            if entry.name == "agent.conf" {
                content.extend_from_slice(format!("<!-- Source file: {group}/agent.conf -->\n").as_bytes());
            }
            content.extend_from_slice(entry.content);
            match known {
                None => files.push((entry.name.into(), content)),
                Some((name, before)) if name == "agent.conf" => before.extend_from_slice(&content),
                Some((_, before)) => *before = content,
            }
        }
    }
    files
}

/// Directory and first line for several groups: eight hexadecimal characters of the hash of their comma list.
pub fn multigroup(groups: &[&str]) -> String {
    crate::key::hex(&Sha256::digest(groups.join(","))[..4])
}

/// The pieces of a file as they are sent, each in a message of its own: at most [`CHUNK`] bytes, none of which a
/// receiver could take for a control message.
///
/// # Errors
/// When the channel cannot carry the file.
pub fn chunks(file: &[u8]) -> Result<impl Iterator<Item = &[u8]>, BundleError> {
    if memchr(0, file).is_some() {
        return Err(BundleError::Binary);
    }
    if file.starts_with(CONTROL) {
        return Err(BundleError::Start);
    }
    let mut at = 0;
    Ok(std::iter::from_fn(move || {
        let piece = piece(file, at);
        at += piece.len();
        (!piece.is_empty()).then_some(piece)
    }))
}

/// The piece that begins at `at`, empty at the end. For senders that go on later; whether the channel can carry the file
/// at all, [`chunks`] tells.
pub fn piece(file: &[u8], at: usize) -> &[u8] {
    let rest = file.get(at..).unwrap_or_default();
    let mut cut = CHUNK.min(rest.len());
    // One byte earlier the next piece starts with the byte before the mark, which is never the mark itself.
    if rest[cut..].starts_with(CONTROL) {
        cut -= 1;
    }
    &rest[..cut]
}

/// The name below `etc/shared` under which an agent stores a file that the manager pushes; `None` refuses it.
pub fn pushed_name(name: &str) -> Option<String> {
    if name.is_empty() || name.contains("..") {
        return None;
    }
    let mut flat = name.replace('/', "-");
    if flat.starts_with('.') {
        flat.replace_range(..1, "-");
    }
    is_safe_name(&flat).then_some(flat)
}

/// A line of `ar.conf`: which file a response name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseLine {
    /// Command name and timeout in one.
    pub name: String,
    /// File in `active-response/bin`.
    pub executable: String,
    /// Seconds.
    pub timeout: u64,
}

/// What every `ar.conf` starts with.
const BUILT_IN: [(&str, &str); 6] = [
    ("restart-ossec0", "restart-ossec.sh"),
    ("restart-ossec0", "restart-ossec.cmd"),
    ("restart-wazuh0", "restart-ossec.sh"),
    ("restart-wazuh0", "restart-ossec.cmd"),
    ("restart-wazuh0", "restart-wazuh"),
    ("restart-wazuh0", "restart-wazuh.exe"),
];

/// The text of `ar.conf` for the configured responses, in the order of the configuration.
pub fn print_responses(lines: &[ResponseLine]) -> String {
    let mut text = String::new();
    for (name, executable) in BUILT_IN {
        let _ = writeln!(text, "{name} - {executable} - 0");
    }
    for line in lines {
        let _ = writeln!(text, "{} - {} - {}", line.name, line.executable, line.timeout);
    }
    text
}

/// Reads `ar.conf`; the numbers of lines that are none of its form come second.
pub fn parse_responses(text: &str) -> (Vec<ResponseLine>, Vec<usize>) {
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parsed = line.split_once(" - ").and_then(|(name, rest)| {
            let (executable, timeout) = rest.split_once(" - ")?;
            let timeout = timeout.trim_end().parse().ok()?;
            let fits = !name.is_empty() && !executable.is_empty();
            fits.then(|| ResponseLine { name: name.into(), executable: executable.into(), timeout })
        });
        match parsed {
            Some(parsed) => lines.push(parsed),
            None => bad.push(index + 1),
        }
    }
    (lines, bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bundle_has_a_head_and_sized_files() {
        let files = [
            Entry { name: "ar.conf", content: b"a - b - 0\n" },
            Entry { name: "lists/x", content: b"no line end" },
            Entry { name: "empty", content: b"" },
        ];
        let bundle = build("default", &files).unwrap();
        assert_eq!(bundle, b"#default\n!10 ar.conf\na - b - 0\n!11 lists/x\nno line end!0 empty\n");
        assert_eq!(parse(&bundle).unwrap(), files);
    }

    #[test]
    fn lines_between_files_are_skipped() {
        let bundle = b"#g\n\nnoise\n!1 a\nx\nmore noise\n!2 b\nyz";
        assert_eq!(parse(bundle).unwrap().len(), 2);
    }

    #[test]
    fn names_that_climb_and_sizes_that_lie_are_refused() {
        for name in ["../a", "a/../b", "/a", "a//b", "..", "a\\b", "C:a", "", "a\tb", "./a", "a/"] {
            assert!(
                matches!(build("g", &[Entry { name, content: b"" }]), Err(BundleError::Name(_))),
                "{name}"
            );
            assert!(parse(format!("!0 {name}\n").as_bytes()).is_err(), "{name}");
        }
        for bad in ["!5 a\nxyz", "!-1 a\n", "!a b\n", "!1\n", "!99999999999 a\nx", "! a\n", "!+1 a\nx"] {
            assert!(matches!(parse(bad.as_bytes()), Err(BundleError::Entry(_))), "{bad}");
        }
    }

    #[test]
    fn pushed_names_are_flat() {
        for (name, stored) in [
            ("merged.mg", Some("merged.mg")),
            ("a/b", Some("a-b")),
            (".hidden", Some("-hidden")),
            ("/etc/passwd", Some("-etc-passwd")),
            ("../x", None),
            ("a..b", None),
            ("", None),
        ] {
            assert_eq!(pushed_name(name).as_deref(), stored, "{name}");
        }
    }

    #[test]
    fn no_piece_but_a_refused_first_one_looks_like_a_control_message() {
        let file = [vec![b'x'; CHUNK], b"#!-execd {}".to_vec()].concat();
        let pieces: Vec<_> = chunks(&file).unwrap().collect();
        assert_eq!(pieces[0].len(), CHUNK - 1);
        assert!(pieces[1].starts_with(b"x#!-"));
        assert!(matches!(chunks(b"#!-execd").map(Iterator::count), Err(BundleError::Start)));
        assert!(matches!(chunks(b"a\0b").map(Iterator::count), Err(BundleError::Binary)));
    }

    #[test]
    fn later_groups_win_but_every_agent_conf_counts() {
        let entry = |name, content| Entry { name, content };
        let groups = [
            ("a", vec![entry("agent.conf", &b"<1/>\n"[..]), entry("list", b"old")]),
            ("b", vec![entry("list", b"new"), entry("agent.conf", b"<2/>\n")]),
        ];
        let files = combine(&groups);
        assert_eq!(files[1], ("list".into(), b"new".to_vec()));
        assert_eq!(
            String::from_utf8_lossy(&files[0].1),
            "<!-- Source file: a/agent.conf -->\n<1/>\n<!-- Source file: b/agent.conf -->\n<2/>\n"
        );
        assert_eq!(multigroup(&["a", "b"]), crate::key::hex(&Sha256::digest("a,b"))[..8]);
    }

    #[test]
    fn ar_conf_is_the_contracts_to_the_byte() {
        let line = |name: &str, executable: &str, timeout| ResponseLine {
            name: name.into(),
            executable: executable.into(),
            timeout,
        };
        let lines = [line("firewall-drop600", "firewall-drop", 600), line("host-deny0", "host-deny", 0)];
        let text = print_responses(&lines);
        assert_eq!(text.find("firewall-drop600"), Some(228));
        assert!(text.ends_with("\nfirewall-drop600 - firewall-drop - 600\nhost-deny0 - host-deny - 0\n"));
        let (read, bad) = parse_responses(&text);
        assert!(bad.is_empty());
        assert_eq!((read.len(), &read[6..]), (8, &lines[..]));
        assert_eq!(parse_responses("a5 - b - 5").0, [line("a5", "b", 5)]);
        assert_eq!(parse_responses("a - b\n\n - b - 1\na - b - x").1, [1, 3, 4]);
    }

    proptest! {
        #[test]
        fn bundles_round_trip(files in prop::collection::vec(("[a-z]{1,5}(/[a-z.]{1}[a-z]{2})?", prop::collection::vec(any::<u8>(), 0..50)), 0..6)) {
            let files: Vec<_> = files.iter().map(|(name, content)| Entry { name, content }).collect();
            let bundle = build("g", &files).unwrap();
            prop_assert_eq!(parse(&bundle).unwrap(), files);
        }

        #[test]
        fn any_bytes_are_survived(text in "[#! 0-9a.\n/]{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(text.as_bytes());
            let _ = parse(&bytes);
            let _ = parse_responses(&text);
            for file in parse(text.as_bytes()).unwrap_or_default() {
                prop_assert!(is_safe_name(file.name));
            }
        }

        #[test]
        fn pieces_join_to_the_file_and_none_is_a_control_message(runs in prop::collection::vec((890usize..910, "[#!x-]{0,6}"), 1..5)) {
            let file: Vec<u8> = runs.iter().flat_map(|(length, mark)| [&vec![b'y'; *length], mark.as_bytes()].concat()).collect();
            let pieces: Vec<_> = chunks(&file).unwrap().collect();
            prop_assert!(pieces.iter().all(|piece| piece.len() <= CHUNK && !piece.is_empty() && !piece.starts_with(CONTROL)));
            prop_assert_eq!(pieces.concat(), file);
        }
    }
}
