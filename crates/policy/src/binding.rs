//! Binding of a response to a rule at load (active-response 3.1, the table of level, group and ids).

use tld_config::Response;
use tld_rules::RuleInfo;

/// Which part of the response's definition bound it to the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// `level` alone: the broad form.
    Level,
    /// `rules_group`, with or without `level`.
    Group,
    /// `rules_id`.
    Id,
}

/// True when an alert of the rule is to run the response. Level and group are AND, ids are OR on top.
pub fn bind(response: &Response, rule: &RuleInfo) -> Option<Because> {
    if rule.level == 0 || rule.no_ar {
        return None;
    }
    if response.rules_id.contains(&rule.id) {
        return Some(Because::Id);
    }
    let level = response.level.filter(|level| *level > 0).map(|level| rule.level >= level);
    let group = response.rules_group.as_deref().map(|pattern| group_matches(pattern, &rule.groups));
    match (level, group) {
        (Some(true), None) => Some(Because::Level),
        (Some(true) | None, Some(true)) => Some(Because::Group),
        _ => None,
    }
}

/// The contract matches the raw group string with its own simple expression: unanchored, case ignored, `|` separates.
fn group_matches(pattern: &str, groups: &str) -> bool {
    tld_pattern::Expression::compile(tld_pattern::Kind::OsRegex, pattern.as_bytes())
        .is_ok_and(|expression| expression.is_match(groups.as_bytes()))
}
