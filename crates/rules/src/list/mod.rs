//! Key–value lists that rules look values up in (analysis-rules 7). The text form is kept in memory; there is no
//! compiled file. Invariant: the first of equal keys wins, and keys are compared byte for byte.

use std::collections::HashMap;
use std::sync::Arc;

use tld_xml::Source;

/// Longer lines are not entries.
const LINE_LIMIT: usize = 65_535;
/// Where a list named without a directory lives.
const BARE_PREFIX: &str = "ruleset/rules/";

/// One list.
#[derive(Debug, Default)]
pub(crate) struct TextList {
    entries: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl TextList {
    /// Reads `key:value` lines; what is no entry is skipped, as the contract does.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut entries = HashMap::new();
        for line in text.split(|&byte| byte == b'\n') {
            let line = line.iter().position(|&byte| byte == b'\r').map_or(line, |at| &line[..at]);
            if line.len() > LINE_LIMIT {
                continue;
            }
            if let Some((key, value)) = entry(line) {
                entries.entry(key.into()).or_insert_with(|| value.into());
            }
        }
        Self { entries }
    }

    /// The value of exactly this key.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(|value| &**value)
    }

    /// The value of the address itself or of its longest prefix that ends in a dot.
    pub(crate) fn address_value(&self, address: &[u8]) -> Option<&[u8]> {
        if let Some(value) = self.value(address) {
            return Some(value);
        }
        let mut rest = address;
        while let Some(dot) = rest.iter().rposition(|&byte| byte == b'.') {
            if let Some(value) = self.value(&rest[..=dot]) {
                return Some(value);
            }
            rest = &rest[..dot];
        }
        None
    }
}

/// All lists of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    by_name: HashMap<String, Arc<TextList>>,
}

impl Lists {
    /// Reads every source; its name is the path that the configuration gave.
    pub(crate) fn load(sources: &[Source]) -> Self {
        let mut by_name = HashMap::new();
        for source in sources {
            by_name.entry(canonical(&source.name)).or_insert_with(|| Arc::new(TextList::parse(&source.text)));
        }
        Self { by_name }
    }

    /// The list that a rule names.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<TextList>> {
        self.by_name.get(&canonical(name)).map(Arc::clone)
    }

    /// How many lists there are.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}

fn canonical(name: &str) -> String {
    let name = name.strip_suffix(".cdb").unwrap_or(name);
    if name.contains('/') { name.to_owned() } else { format!("{BARE_PREFIX}{name}") }
}

fn entry(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (key, rest) = match memchr::memchr(b'"', line) {
        Some(quote) if quote < colon => {
            let (key, rest) = quoted(line)?;
            (key, &rest[memchr::memchr(b':', rest)? + 1..])
        }
        _ => (&line[..colon], &line[colon + 1..]),
    };
    let value = if rest.contains(&b'"') { quoted(rest)?.0 } else { rest };
    Some((key, value))
}

/// The text between the first two quotes and what follows the second.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let open = memchr::memchr(b'"', text)? + 1;
    let length = memchr::memchr(b'"', &text[open..])?;
    Some((&text[open..open + length], &text[open + length + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_let_a_key_hold_colons_and_a_value_be_cut_out() {
        let list = TextList::parse(b"\"a:b\":c\nk:\"v w\" x\r\nno entry\n\"open:1\nk:second\nempty:\n");
        assert_eq!(list.value(b"a:b"), Some(&b"c"[..]));
        assert_eq!(list.value(b"k"), Some(&b"v w"[..]));
        assert_eq!(list.value(b"empty"), Some(&b""[..]));
        assert_eq!(list.entries.len(), 3);
    }

    #[test]
    fn an_address_is_found_by_its_longest_dotted_prefix() {
        let list = TextList::parse(b"10.:far\n10.1.:near\n192.0.2.1:self\n");
        assert_eq!(list.address_value(b"10.1.2.3"), Some(&b"near"[..]));
        assert_eq!(list.address_value(b"10.9.2.3"), Some(&b"far"[..]));
        assert_eq!(list.address_value(b"192.0.2.1"), Some(&b"self"[..]));
        assert_eq!(list.address_value(b"11.1.2.3"), None);
    }

    #[test]
    fn a_name_is_found_with_and_without_its_suffix_and_default_directory() {
        let lists = Lists::load(&[Source::new("words", &b"a:"[..]), Source::new("etc/lists/x", &b"b:"[..])]);
        assert!(lists.find("words.cdb").is_some());
        assert!(lists.find("ruleset/rules/words").is_some());
        assert!(lists.find("etc/lists/x").is_some());
        assert!(lists.find("etc/lists/y").is_none());
    }
}
