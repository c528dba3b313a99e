//! The third and simplest matcher, for group names in `if_group`.

/// Alternatives of group names: `^name` is a prefix test, `name` a substring test, in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPattern {
    alternatives: Vec<Alternative>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Alternative {
    text: Vec<u8>,
    prefix: bool,
}

impl GroupPattern {
    /// Reads `pattern`; every text is a pattern, an empty one never matches.
    pub fn new(pattern: &str) -> Self {
        if pattern.is_empty() {
            return Self { alternatives: Vec::new() };
        }
        let alternatives = pattern
            .split('|')
            .map(|part| match part.strip_prefix('^') {
                Some(text) => Alternative { text: text.to_ascii_lowercase().into_bytes(), prefix: true },
                None => Alternative { text: part.to_ascii_lowercase().into_bytes(), prefix: false },
            })
            .collect();
        Self { alternatives }
    }

    /// Whether `groups`, the group text of a rule, satisfies one alternative.
    pub fn matches(&self, groups: &str) -> bool {
        let groups = groups.as_bytes();
        self.alternatives.iter().any(|alternative| {
            if alternative.prefix {
                crate::literal::starts_with(groups, &alternative.text)
            } else {
                crate::literal::contains(groups, &alternative.text)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_substrings_or_prefixes_in_any_case() {
        let pattern = GroupPattern::new("^Web|sshd");
        assert!(pattern.matches("web,accesslog"));
        assert!(pattern.matches("syslog,SSHD,"));
        assert!(!pattern.matches("syslog,web"));
    }

    #[test]
    fn dollar_and_exclamation_mark_mean_themselves() {
        assert!(!GroupPattern::new("web$").matches("web"));
        assert!(GroupPattern::new("web$").matches("a web$ b"));
        assert!(!GroupPattern::new("!web").matches("sshd"));
    }

    #[test]
    fn the_empty_pattern_never_matches() {
        assert!(!GroupPattern::new("").matches(""));
        assert!(!GroupPattern::new("").matches("web"));
    }
}
