//! What a line of `active-responses.log` proves about an order that went to a peer of the plain contract, which confirms
//! nothing else (active-response 10.1).
//! Invariant: a line counts only for orders of the agent whose session brought it, and only where it names their alert.

use serde::Deserialize;
use serde_json::value::RawValue;
use tld_model::Event;

/// The end of the log's path, on every system.
const LOG: &[u8] = b"active-responses.log";

/// Whether an event is a line of the responses' log.
pub(crate) fn is_one(event: &Event) -> bool {
    event.location.ends_with(LOG)
}

/// A line taken apart.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// The executable as it was started (`active-response/bin/firewall-drop`).
    pub(super) program: &'a str,
    /// What it says.
    pub(super) said: Said<'a>,
}

/// What a line says.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// The executable runs.
    Starting,
    /// It was given this message.
    Told {
        /// `add`, `delete`, `continue` or `abort`.
        verb: Verb,
        /// The alert in it, if it is whole.
        alert: Option<&'a RawValue>,
        /// The message, whole or cut.
        text: &'a str,
    },
    /// It is done.
    Ended,
    /// It was told that nothing is to be done, and did nothing.
    Aborted,
    /// Anything else: its own words, most often an error.
    Words(&'a str),
}

/// Verbs of the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Delete,
    Continue,
    Abort,
}

#[derive(Deserialize)]
struct Message<'a> {
    command: &'a str,
    #[serde(borrow)]
    parameters: Parameters<'a>,
}

#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow)]
    alert: Option<&'a RawValue>,
}

impl<'a> Line<'a> {
    /// Reads `YYYY/MM/DD HH:MM:SS <program>: <text>`; other forms are those of agents before 4.2, which name program, verb
    /// and alert in one line.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let Some(rest) = stamped(line) else { return legacy(line) };
        let (program, text) = rest.split_once(": ")?;
        let said = match text.trim_end() {
            "Starting" => Said::Starting,
            "Ended" => Said::Ended,
            "Aborted" => Said::Aborted,
            text if text.starts_with('{') => told(text)?,
            text => Said::Words(text),
        };
        Some(Self { program, said })
    }
}

/// The text behind a timestamp.
fn stamped(line: &str) -> Option<&str> {
    let stamp = line.as_bytes().get(..20)?;
    let form = b"0000/00/00 00:00:00 ";
    let fits = stamp.iter().zip(form).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == form,
    });
    fits.then(|| line.get(20..)).flatten()
}

fn told(text: &str) -> Option<Said<'_>> {
    if let Ok(message) = serde_json::from_str::<Message<'_>>(text) {
        let verb = verb(message.command)?;
        return Some(Said::Told { verb, alert: message.parameters.alert, text });
    }
    // The line was cut on its way. The verb stands before anything that an attacker wrote.
    let (_, rest) = text.get(..text.floor_char_boundary(512))?.split_once("\"command\":\"")?;
    Some(Said::Told { verb: verb(rest.split_once('"')?.0)?, alert: None, text })
}

fn verb(name: &str) -> Option<Verb> {
    Some(match name {
        "add" => Verb::Add,
        "delete" => Verb::Delete,
        "continue" => Verb::Continue,
        "abort" => Verb::Abort,
        _ => return None,
    })
}

/// `<date> <path of the program> add <user> <address> <alert> <rule> …`
fn legacy(line: &str) -> Option<Line<'_>> {
    let at = line.find("active-response/bin/")?;
    let (program, rest) = line.get(at..)?.split_once(' ')?;
    let verb = verb(rest.split(' ').next()?)?;
    Some(Line { program, said: Said::Told { verb, alert: None, text: rest } })
}

/// Which alert a message is about, as far as it tells.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    id: Option<String>,
    alert: Option<&'a RawValue>,
    text: &'a str,
}

impl<'a> Claim<'a> {
    /// Of a message and the alert in it, if it is whole.
    pub(super) fn of(alert: Option<&'a RawValue>, text: &'a str) -> Self {
        #[derive(Deserialize)]
        struct Named {
            id: Option<String>,
        }
        let named = alert.and_then(|alert| serde_json::from_str::<Named>(alert.get()).ok());
        Self { id: named.and_then(|named| named.id), alert, text }
    }

    /// Whether it is the alert of that order.
    pub(super) fn concerns(&self, order: &tld_model::Order) -> bool {
        match (&self.id, order.alert_id.as_str(), self.alert) {
            (Some(id), wanted, _) => id == wanted,
            // Other tools send alerts without an id: those are known by all they say.
            (None, "", Some(alert)) => {
                let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
                value(alert.get()).is_some_and(|told| value(order.alert.get()) == Some(told))
            }
            (None, wanted, None) if !wanted.is_empty() => {
                // Quotes within a text are escaped, so this cannot stand inside a value that an attacker chose.
                self.text.contains(&format!("\"id\":\"{wanted}\""))
                    || self.text.split(' ').any(|word| word == wanted)
            }
            _ => false,
        }
    }
}

/// Whether that program is the executable of an order: the same file name, with or without its extension.
pub(super) fn runs(program: &str, executable: &str) -> bool {
    fn stem(name: &str) -> &str {
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }
    stem(program).eq_ignore_ascii_case(stem(executable.trim_start_matches('!')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tld_model::RawJson;

    use super::*;

    const ADD: &str = r#"2026/03/02 10:15:31 active-response/bin/firewall-drop: {"version":1,"origin":{"name":"node01","module":"wazuh-execd"},"command":"add","parameters":{"extra_args":[],"alert":{"id":"1772446530.48213","data":{"srcip":"203.0.113.7"}},"program":"active-response/bin/firewall-drop"}}"#;

    fn order(alert: &str, id: &str) -> tld_model::Order {
        let json = serde_json::json!({
            "id": "o", "response": "r0", "executable": "firewall-drop", "timeout_secs": 0, "alert": {}, "alert_id": id,
            "target": "none", "created": serde_json::to_value(tld_model::Timestamp::EPOCH).unwrap(),
        });
        let order: tld_model::Order = serde_json::from_str(&json.to_string()).unwrap();
        let alert = RawJson::from(RawValue::from_string(alert.into()).unwrap());
        tld_model::Order { alert, ..order }
    }

    #[test]
    fn a_message_in_the_log_names_program_verb_and_alert() {
        let line = Line::parse(ADD).unwrap();
        assert_eq!(line.program, "active-response/bin/firewall-drop");
        let Said::Told { verb, alert, text } = line.said else { panic!("{line:?}") };
        assert_eq!(verb, Verb::Add);
        assert!(Claim::of(alert, text).concerns(&order("{}", "1772446530.48213")));
        assert!(!Claim::of(alert, text).concerns(&order("{}", "1772446530.4821")));
    }

    #[test]
    fn a_cut_message_is_known_by_its_id_and_not_by_what_an_attacker_quotes() {
        let cut = &ADD[..ADD.len() - 60];
        let Some(Line { said: Said::Told { alert: None, text, .. }, .. }) = Line::parse(cut) else {
            panic!("not told")
        };
        assert!(Claim::of(None, text).concerns(&order("{}", "1772446530.48213")));
        let forged = r#"{"command":"add","parameters":{"alert":{"full_log":"\"id\":\"9.9\"#;
        assert!(!Claim::of(None, forged).concerns(&order("{}", "9.9")));
    }

    #[test]
    fn an_alert_without_id_is_known_by_all_it_says() {
        let alert = RawValue::from_string(r#"{"data":{"srcip":"203.0.113.7"}}"#.into()).unwrap();
        assert!(Claim::of(Some(&alert), "").concerns(&order(r#"{"data": {"srcip": "203.0.113.7"}}"#, "")));
        assert!(!Claim::of(Some(&alert), "").concerns(&order(r#"{"data":{"srcip":"203.0.113.8"}}"#, "")));
    }

    #[test]
    fn old_agents_name_the_alert_in_their_one_line() {
        let line = "Mon Mar 02 10:15:31 UTC 2026 /var/ossec/active-response/bin/firewall-drop.sh add - 203.0.113.7 1772446530.48213 5712 x";
        let line = Line::parse(line).unwrap();
        assert!(runs(line.program, "firewall-drop"));
        let Said::Told { verb: Verb::Add, alert, text } = line.said else { panic!("{line:?}") };
        assert!(Claim::of(alert, text).concerns(&order("{}", "1772446530.48213")));
    }

    #[test]
    fn programs_are_compared_by_their_files_stem() {
        assert!(runs("active-response/bin/netsh.exe", "netsh"));
        assert!(runs("active-response/bin/custom-ar", "!custom-ar"));
        assert!(!runs("active-response/bin/host-deny", "host"));
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "(2026/03/02 10:15:31 )?[ a-z/:{}\"é]{0,60}") {
            let _ = Line::parse(&line).map(|line| line.program.len());
        }
    }
}
