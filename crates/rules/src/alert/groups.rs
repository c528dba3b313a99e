//! Groups and compliance arrays out of a rule's group string (analysis-output 1.1).

/// Bytes of the group string that count.
const LIMIT: usize = 1023;

/// Prefixes that lead into an array of their own.
const ARRAYS: [&str; 7] = ["pci_dss", "cis", "gdpr", "gpg13", "hipaa", "nist_800_53", "tsc"];

/// Names and values of the arrays in order of first appearance; `groups` always comes first.
pub(crate) fn arrays(groups: &str) -> Vec<(&'static str, Vec<&[u8]>)> {
    let groups = groups.as_bytes();
    let mut arrays: Vec<(&'static str, Vec<&[u8]>)> = vec![("groups", Vec::new())];
    for part in groups[..groups.len().min(LIMIT)].split(|byte| *byte == b',') {
        if part.is_empty() {
            continue;
        }
        let stripped = ARRAYS.into_iter().find_map(|name| {
            let rest = part.strip_prefix(name.as_bytes())?.strip_prefix(b"_")?;
            Some((name, rest))
        });
        let (name, value) = stripped.unwrap_or(("groups", part));
        match arrays.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => arrays.push((name, vec![value])),
        }
    }
    arrays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compliance_parts_leave_the_groups() {
        let arrays = arrays("syslog,,sshd,pci_dss_10.2.4,tsc_CC6.1,pci_dss_10.2.5, blank,");
        let text = |values: &[&[u8]]| {
            values.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect::<Vec<_>>()
        };
        let arrays: Vec<_> = arrays.iter().map(|(name, values)| (*name, text(values))).collect();
        assert_eq!(arrays[0], ("groups", vec!["syslog".into(), "sshd".into(), " blank".into()]));
        assert_eq!(arrays[1], ("pci_dss", vec!["10.2.4".into(), "10.2.5".into()]));
        assert_eq!(arrays[2], ("tsc", vec!["CC6.1".into()]));
    }
}
