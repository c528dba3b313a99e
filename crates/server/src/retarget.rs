//! The alert as an order carries it when `<contested>last` chose another target than the decoded one.
//!
//! Executables read their target from the alert's `data`, so the order's copy says what was chosen; alerts.json keeps the
//! decoder's answer. Invariant: every other member stays byte for byte and in its place.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use tld_config::Contested;
use tld_model::{Alert, Target};
use tld_policy::Decision;

/// Field and value that the order's copy of the alert must say; none where the decoded value is the target.
pub(crate) fn chosen(alert: &Alert, decision: &Decision<'_>) -> Option<(&'static str, String)> {
    if decision.response.contested != Contested::Last || alert.contested.is_empty() {
        return None;
    }
    let (field, decoded, wanted) = match &decision.target {
        Target::Address(address) => ("srcip", alert.srcip.as_deref()?, address.to_string()),
        Target::User(user) => ("dstuser", alert.dstuser.as_deref()?, user.clone()),
        Target::None => return None,
    };
    let same = match &decision.target {
        Target::Address(address) => tld_pattern::parse_address(decoded) == Some(*address),
        _ => decoded == wanted.as_bytes(),
    };
    let contested = alert.contested.iter().any(|(name, _)| *name == field);
    (contested && !same).then_some((field, wanted))
}

/// The alert with `data.<field>` set to `value`. The text as it is where it has no such member.
pub(crate) fn retarget(alert: Box<RawValue>, field: &str, value: &str) -> Box<RawValue> {
    let Ok(value) = serde_json::value::to_raw_value(value) else { return alert };
    let changed = members(alert.get()).and_then(|mut root| {
        let (_, data) = root.iter_mut().find(|(key, _)| key == "data")?;
        let mut fields = members(data.get())?;
        let (_, old) = fields.iter_mut().find(|(key, _)| key == field)?;
        *old = value;
        *data = object(&fields)?;
        object(&root)
    });
    changed.unwrap_or(alert)
}

type Members = Vec<(String, Box<RawValue>)>;

/// Members of an object in order, values as written.
fn members(text: &str) -> Option<Members> {
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Members;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            let mut members = Members::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(InOrder).ok()
}

fn object(members: &Members) -> Option<Box<RawValue>> {
    let mut text = String::from("{");
    for (key, value) in members {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(key).ok()?);
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    RawValue::from_string(text).ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};

    use tld_config::{Role, Settings};
    use tld_model::{Event, Order, Timestamp, Timings};
    use tld_policy::Policy;
    use tld_respond::carrier::{Carrier, DeliverError};
    use tld_rules::{Analyzer, Options, Ruleset};
    use tld_xml::Source;

    use super::*;
    use crate::dispatch::{Considered, Dispatch, OrderIds};

    fn retargeted(text: &str) -> String {
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        retarget(raw, "srcip", "198.51.100.5").get().to_owned()
    }

    #[test]
    fn only_the_field_of_data_changes() {
        let text = r#"{"agent":{"labels":{"srcip":"1.1.1.1","data":{"srcip":"2.2.2.2"}}},"full_log":"\"data\":{\"srcip\":\"3.3.3.3\"}","data":{"protocol":"tcp","srcip":"203.0.113.9","x":{"srcip":"4.4.4.4"}},"n":1.50}"#;
        assert_eq!(retargeted(text), text.replace("203.0.113.9", "198.51.100.5"));
    }

    #[test]
    fn an_alert_without_the_field_stays() {
        for text in [r#"{"data":{"dstuser":"x"}}"#, r#"{"data":"x"}"#, "[]", "{}"] {
            assert_eq!(retargeted(text), text);
        }
    }

    /// Keeps what it is given.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Order>>>);

    impl Carrier for Kept {
        fn deliver(&self, order: &Order) -> Result<(), DeliverError> {
            self.0.lock().unwrap().push(order.clone());
            Ok(())
        }
    }

    const DECODERS: &str = r#"<decoder name="sshd"><program_name>^sshd</program_name></decoder>
        <decoder name="inv"><parent>sshd</parent><prematch>^Invalid user</prematch>
        <regex offset="after_prematch">(\S+) from (\S+)</regex><order>srcuser, srcip</order></decoder>"#;
    const RULES: &str = r#"<group name="sshd,"><rule id="1" level="0"><category>syslog</category>
        <description>All.</description></rule><rule id="100001" level="5"><if_sid>1</if_sid>
        <description>Invalid user.</description></rule></group>"#;
    const FORGED: &str =
        "Dec 29 10:00:01 gate sshd[4]: Invalid user x from 203.0.113.9 port 22 from 198.51.100.5 port 40022";

    fn settings(contested: &str, allow: &str) -> Settings {
        let text = format!(
            "<ossec_config><global><white_list>{allow}</white_list></global>\
             <command><name>firewall-drop</name><executable>firewall-drop</executable></command>\
             <active-response><command>firewall-drop</command><location>local</location><level>1</level>\
             <contested>{contested}</contested></active-response></ossec_config>"
        );
        tld_config::parse(&Source::new("ossec.conf", text.into_bytes()), Role::Standalone).settings
    }

    /// Orders for the forged line, and what alerts.json says of its source.
    fn orders(contested: &str, allow: &str) -> (Vec<Order>, Vec<Considered>, String) {
        let source = |name: &str, text: &str| Source::new(name, text.as_bytes());
        let loaded =
            Ruleset::load(&[source("d.xml", DECODERS)], &[source("r.xml", RULES)], &[], &Options::default());
        let ruleset = loaded.ruleset.expect("no errors");
        let policy = Policy::new(&settings(contested, allow), &ruleset);
        let mut analyzer = Analyzer::new(ruleset, tld_rules::Settings::default());
        let event = Event::local("/var/log/auth.log", FORGED, Timestamp::from_secs(1_772_446_530));
        let alert = analyzer.analyze(&event).alert.expect("an alert");
        let kept = Kept::default();
        let ids = OrderIds::new(Timestamp::EPOCH, 1);
        let mut dispatch = Dispatch::new(Box::new(kept.clone()), ids, String::new(), false);
        let decisions = policy.decide(&alert);
        let considered = dispatch.send(&alert, "1.0", &decisions, Timings::default(), Timestamp::EPOCH);
        let mut written = Vec::new();
        alert.json.write("1.0", &mut written);
        let written = String::from_utf8(written).unwrap();
        let orders = kept.0.lock().unwrap().clone();
        (orders, considered, written)
    }

    fn address(text: &str) -> Target {
        Target::Address(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_contested_target_gets_no_order_unless_the_response_says_which() {
        let (sent, considered, _) = orders("refuse", "127.0.0.1");
        assert!(sent.is_empty());
        let reason = considered[0].result.as_ref().unwrap_err();
        assert!(reason.contains("contested srcip") && reason.contains("198.51.100.5"), "{reason}");
        let (sent, _, written) = orders("first", "127.0.0.1");
        assert_eq!(sent[0].target, address("203.0.113.9"));
        assert_eq!(sent[0].alert.get(), written);
    }

    #[test]
    fn the_order_of_the_last_rival_says_so_in_its_alert_and_the_written_alert_does_not() {
        let (sent, _, written) = orders("last", "127.0.0.1");
        assert_eq!(sent[0].target, address("198.51.100.5"));
        let source = |text: &str| {
            let alert: serde_json::Value = serde_json::from_str(text).unwrap();
            alert["data"]["srcip"].as_str().unwrap().to_owned()
        };
        assert_eq!(source(sent[0].alert.get()), "198.51.100.5");
        assert_eq!(source(&written), "203.0.113.9");
        assert!(written.contains(FORGED) && sent[0].alert.get().contains(FORGED));
    }

    #[test]
    fn the_allow_list_protects_the_chosen_target_and_not_the_forged_one() {
        assert!(orders("last", "198.51.100.5").0.is_empty());
        assert_eq!(orders("last", "203.0.113.9").0.len(), 1);
    }
}
