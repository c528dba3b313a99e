//! Arrays of `rule` that come from the event and not from the rule: what an SCA check and a rootcheck text say about
//! compliance (analysis-output 1.1). Invariant: a name that `rule` has already is left out, since the text is a sender's.

use super::groups;
use super::json::Object;
use super::page::Page;
use crate::Decoded;
use crate::rule::RuleInfo;

/// Bytes of a rootcheck text that count.
const LIMIT: usize = 1023;
/// Most arrays of one event.
const MOST: usize = 16;
/// Members of `rule` that are not compliance.
const TAKEN: [&[u8]; 10] = [
    b"level",
    b"description",
    b"id",
    b"mitre",
    b"cve",
    b"info",
    b"frequency",
    b"firedtimes",
    b"mail",
    b"groups",
];

type Array<'a> = (Vec<u8>, Vec<&'a [u8]>);

/// Appends the arrays of an event that may name some.
#[cold]
#[inline(never)]
pub(super) fn write(event: &Decoded<'_>, sca: bool, rule: &RuleInfo, page: &mut Page) {
    for (name, values) in of(event, sca, rule) {
        let mut array = Vec::new();
        Object::open(&mut array).texts(&name, values.iter().copied());
        array[0] = b',';
        page.append(&array);
    }
}

/// The arrays in order of appearance.
fn of<'a>(event: &'a Decoded<'_>, sca: bool, rule: &RuleInfo) -> Vec<Array<'a>> {
    let mut found: Vec<Array<'a>> = Vec::new();
    if sca {
        for field in event.fields() {
            if let Some(name) = field.name().strip_prefix(b"sca.check.compliance.") {
                found.push((name.to_vec(), words(field.value())));
            }
        }
    }
    if rule.groups.split(',').any(|group| group == "rootcheck") {
        found.extend(braces(&event.full_log));
    }
    if found.is_empty() {
        return found;
    }
    let own = groups::arrays(&rule.groups);
    let mut names: Vec<Vec<u8>> = TAKEN.iter().map(|name| name.to_vec()).collect();
    names.extend(own.iter().map(|(name, _)| name.as_bytes().to_vec()));
    found.retain(|(name, _)| {
        let fresh = !name.is_empty() && !names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if fresh {
            names.push(name.clone());
        }
        fresh
    });
    found.truncate(MOST);
    found
}

/// What stands in `{name: a, b}`.
fn braces(text: &[u8]) -> Vec<Array<'_>> {
    let mut found = Vec::new();
    let mut rest = &text[..text.len().min(LIMIT)];
    while let Some(open) = memchr::memchr(b'{', rest) {
        rest = &rest[open + 1..];
        let Some(close) = memchr::memchr(b'}', rest) else { break };
        if let Some(colon) = memchr::memchr(b':', &rest[..close]) {
            found.push((rest[..colon].trim_ascii().to_ascii_lowercase(), words(&rest[colon + 1..close])));
        }
        rest = &rest[close + 1..];
    }
    found
}

fn words(text: &[u8]) -> Vec<&[u8]> {
    text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_read_with_lower_case_names_and_only_when_closed() {
        let text = b"System Audit: x {CIS: 4.13 Debian} {PCI_DSS: 2.2.4, 3 } {nothing} {open: 1";
        let found: Vec<_> = braces(text);
        assert_eq!(
            found,
            vec![
                (b"cis".to_vec(), vec![b"4.13 Debian".as_slice()]),
                (b"pci_dss".to_vec(), vec![b"2.2.4".as_slice(), b"3"]),
            ]
        );
    }
}
