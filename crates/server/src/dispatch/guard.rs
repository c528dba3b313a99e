//! What keeps one bad rule from hitting a whole fleet: caps in a minute, and a question asked before many agents are isolated
//! or lose accounts at once.
//! Invariant: without the options that set a cap nothing is capped.

use std::collections::HashMap;
use std::time::Duration;

use tld_config::Response;
use tld_model::{Target, Timestamp};
use tld_policy::Uses;

/// What the caps count in.
const WINDOW: Duration = Duration::from_secs(60);
/// Targets counted singly within a window; more than that are a flood, which `max_per_minute` is for.
const MOST_TARGETS: usize = 65_536;
/// Of the fleet, one in so many may be isolated by one alert without `<confirm_all>`.
const SHARE: usize = 5;

/// A response was not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Why, for people.
    pub(super) reason: String,
    /// The first one of its window; only that is written down, since a flood must not fill the ledger.
    pub(super) is_first: bool,
}

#[derive(Debug)]
struct Window {
    since: Timestamp,
    answered: u32,
    of_target: HashMap<Target, u32>,
    refused: u64,
}

/// Counts what each response did in the current minute.
#[derive(Debug, Default)]
pub(super) struct Guard {
    windows: HashMap<String, Window>,
}

impl Guard {
    /// Counts one more answer, if the response may give it.
    pub(super) fn admit(
        &mut self,
        response: &Response,
        target: &Target,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let scope = &response.scope;
        if scope.max_per_minute.is_none() && scope.max_per_target.is_none() {
            return Ok(());
        }
        let window = self.windows.entry(response.name.clone()).or_insert_with(|| Window::new(now));
        // A clock set back must not keep a full window for ever.
        if now.since(window.since) >= WINDOW || now < window.since {
            *window = Window::new(now);
        }
        let of_target = window.of_target.get(target).copied().unwrap_or_default();
        let reason = match (scope.max_per_minute, scope.max_per_target) {
            (Some(most), _) if window.answered >= most => Some(format!(
                "<max_per_minute>{most}</max_per_minute> is reached; what follows within the minute is refused too"
            )),
            (_, Some(most)) if of_target >= most => Some(format!(
                "<max_per_target>{most}</max_per_target> is reached for {target}; more within the minute is refused"
            )),
            _ => None,
        };
        if let Some(reason) = reason {
            window.refused += 1;
            return Err(Refusal { reason, is_first: window.refused == 1 });
        }
        window.answered += 1;
        if window.of_target.len() < MOST_TARGETS {
            window.of_target.insert(target.clone(), of_target + 1);
        }
        Ok(())
    }
}

impl Window {
    fn new(since: Timestamp) -> Self {
        Self { since, answered: 0, of_target: HashMap::new(), refused: 0 }
    }
}

/// Why an answer for `meant` of `fleet` agents needs the operator's word, if it does.
pub(super) fn unconfirmed(response: &Response, meant: usize, fleet: usize) -> Option<String> {
    let stem = response.executable.rsplit_once('.').map_or(response.executable.as_str(), |(stem, _)| stem);
    let cuts_off = stem == "isolate-host" || Uses::of(&response.executable).user();
    let too_many = meant > 1 && meant * SHARE > fleet;
    (cuts_off && too_many && !response.scope.confirm_all).then(|| {
        format!(
            "`{stem}` on {meant} of {fleet} agents at once needs <confirm_all>yes</confirm_all> in its <active-response>"
        )
    })
}

#[cfg(test)]
mod tests {
    use tld_config::{Role, Scope};
    use tld_xml::Source;

    use super::*;

    fn response(executable: &str, scope: Scope) -> Response {
        let text = format!(
            "<ossec_config><command><name>c</name><executable>{executable}</executable></command><active-response>\
             <command>c</command><location>all</location><level>5</level></active-response></ossec_config>"
        );
        let settings =
            tld_config::parse(&Source::new("ossec.conf", text.into_bytes()), Role::Manager).settings;
        Response { scope, ..settings.responses[0].clone() }
    }

    fn address(last: u8) -> Target {
        Target::Address([203, 0, 113, last].into())
    }

    #[test]
    fn a_cap_holds_for_a_minute_and_its_first_refusal_is_marked() {
        let response = response("firewall-drop", Scope { max_per_minute: Some(2), ..Scope::default() });
        let mut guard = Guard::default();
        let at = Timestamp::from_secs;
        assert_eq!(guard.admit(&response, &address(1), at(100)), Ok(()));
        assert_eq!(guard.admit(&response, &address(2), at(101)), Ok(()));
        let first = guard.admit(&response, &address(3), at(102)).unwrap_err();
        assert!(first.is_first && first.reason.contains("max_per_minute"), "{first:?}");
        assert!(!guard.admit(&response, &address(4), at(159)).unwrap_err().is_first);
        assert_eq!(guard.admit(&response, &address(5), at(160)), Ok(()));
    }

    #[test]
    fn a_cap_for_each_target_leaves_other_targets_alone() {
        let response = response("firewall-drop", Scope { max_per_target: Some(1), ..Scope::default() });
        let mut guard = Guard::default();
        let at = Timestamp::from_secs(100);
        assert_eq!(guard.admit(&response, &address(1), at), Ok(()));
        assert!(guard.admit(&response, &address(1), at).is_err());
        assert_eq!(guard.admit(&response, &address(2), at), Ok(()));
    }

    #[test]
    fn isolating_more_than_a_fifth_of_the_fleet_needs_a_word() {
        let isolate = response("isolate-host", Scope::default());
        assert_eq!(unconfirmed(&isolate, 2, 10), None);
        assert!(unconfirmed(&isolate, 3, 10).unwrap().contains("3 of 10"));
        let confirmed = response("isolate-host", Scope { confirm_all: true, ..Scope::default() });
        assert_eq!(unconfirmed(&confirmed, 10, 10), None);
        assert!(unconfirmed(&response("disable-account", Scope::default()), 10, 10).is_some());
        assert_eq!(unconfirmed(&response("firewall-drop", Scope::default()), 10, 10), None);
    }
}
