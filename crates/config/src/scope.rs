//! Which agents a response may reach, and how often: the options of `<active-response>` that the contract does not have.
//! Invariant: without them a response reaches exactly whom the contract says.

use tld_xml::Element;

use crate::reader::{Reader, short};
use crate::settings::Locations;

/// Names of the options.
pub(crate) const OPTIONS: [&str; 6] =
    ["agent_group", "agent_label", "include_manager", "max_per_minute", "max_per_target", "confirm_all"];
/// Most orders of a response in a minute that can be asked for.
const MOST: u64 = 1_000_000;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Of `all`, only agents in one of these groups; empty = every agent.
    pub groups: Vec<String>,
    /// Of `all`, only agents with all of these labels.
    pub labels: Vec<(String, String)>,
    /// `all` means the manager too.
    pub include_manager: bool,
    /// Most alerts of a minute that this response answers; the others are refused.
    pub max_per_minute: Option<u32>,
    /// The same for each single target.
    pub max_per_target: Option<u32>,
    /// An isolating or account response may reach more than a fifth of the agents with one alert.
    pub confirm_all: bool,
}

impl Scope {
    /// Whether it narrows `all`.
    pub fn selects(&self) -> bool {
        !self.groups.is_empty() || !self.labels.is_empty()
    }
}

/// Reads one of [`OPTIONS`].
pub(crate) fn read(reader: &mut Reader<'_>, child: &Element, scope: &mut Scope) {
    let cap =
        |reader: &mut Reader<'_>| reader.number(child, 1, MOST).and_then(|most| u32::try_from(most).ok());
    match child.name.as_str() {
        "agent_group" => {
            let groups = reader.list(child);
            if groups.is_empty() {
                reader.invalid(child, "names of groups with commas between them");
            }
            scope.groups.extend(groups);
        }
        "agent_label" => match reader.text(child).as_deref().and_then(|text| text.split_once('=')) {
            Some((key, value)) if !key.trim().is_empty() => {
                scope.labels.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            _ => reader.invalid(child, "`key=value`, as the agents' <label> has them"),
        },
        "include_manager" => reader.yes_no(child, &mut scope.include_manager),
        "max_per_minute" => scope.max_per_minute = cap(reader).or(scope.max_per_minute),
        "max_per_target" => scope.max_per_target = cap(reader).or(scope.max_per_target),
        _ => reader.yes_no(child, &mut scope.confirm_all),
    }
}

/// Options that would have no effect are errors: whoever wrote them relies on them.
pub(crate) fn check(reader: &mut Reader<'_>, block: &Element, scope: &Scope, location: Locations) {
    let effective = location.all && !location.server;
    for child in &block.children {
        let narrows = matches!(child.name.as_str(), "agent_group" | "agent_label" | "include_manager");
        if narrows && !effective {
            let message = format!("`{}` has no effect without location `all`", short(&child.name));
            reader.error(Some(1235), child.name_span, message, "write `<location>all</location>`");
        }
    }
    if scope.confirm_all && !effective {
        let message = "`confirm_all` has no effect without location `all`";
        reader.warning(block.name_span, message, "remove it");
    }
}

#[cfg(test)]
mod tests {
    use tld_xml::Source;

    use super::*;
    use crate::Role;

    fn scope(location: &str, options: &str) -> (Option<Scope>, Vec<String>) {
        let text = format!(
            "<ossec_config><command><name>c</name><executable>c</executable></command><active-response>\
             <command>c</command><location>{location}</location><level>5</level>{options}</active-response></ossec_config>"
        );
        let parsed = crate::parse(&Source::new("ossec.conf", text.into_bytes()), Role::Manager);
        let scope = parsed.settings.responses.into_iter().next().map(|response| response.scope);
        (scope, parsed.diagnostics.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn a_response_without_options_reaches_whom_the_contract_says() {
        assert_eq!(scope("all", ""), (Some(Scope::default()), Vec::new()));
    }

    #[test]
    fn groups_labels_and_caps_are_read() {
        let (scope, problems) = scope(
            "all",
            "<agent_group>web, db</agent_group><agent_label>site = lab</agent_label><include_manager>yes</include_manager>\
             <max_per_minute>30</max_per_minute><max_per_target>2</max_per_target><confirm_all>yes</confirm_all>",
        );
        let wanted = Scope {
            groups: vec!["web".into(), "db".into()],
            labels: vec![("site".into(), "lab".into())],
            include_manager: true,
            max_per_minute: Some(30),
            max_per_target: Some(2),
            confirm_all: true,
        };
        assert_eq!((scope, problems), (Some(wanted), Vec::new()));
    }

    #[test]
    fn an_option_that_would_have_no_effect_is_an_error() {
        let (scope, problems) = scope("local", "<agent_group>web</agent_group>");
        assert_eq!(scope, None);
        assert!(problems[0].contains("`agent_group` has no effect"), "{problems:?}");
    }
}
