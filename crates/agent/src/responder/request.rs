//! What came on the socket, as far as it can be understood (active-response 6.3, 6.5 and 7.2).
//!
//! Pure: bytes in, a [`Request`] or a [`Fault`] out. Invariant: any bytes are an answer, never a panic, and what is
//! kept is no longer than what came.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tld_model::RawJson;

/// Why a datagram is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not begin with a JSON value.
    #[error("it is not JSON")]
    NotJson,
    /// There is no text under `command`.
    #[error("it has no `command`")]
    NoCommand,
}

impl Fault {
    /// Its number in the contract's catalogue.
    pub const fn code(self) -> u16 {
        match self {
            Self::NotJson => 1315,
            Self::NoCommand => 1316,
        }
    }
}

/// A request with a command.
#[derive(Debug)]
pub struct Request {
    /// Response name, `!file`, or a special name.
    pub command: String,
    /// Our own manager's name of the order: top-level member `threatlockdown`, a text or an object with `order`.
    pub order_id: Option<String>,
    /// What a response works with; none if the message is not well formed, so that its executable must reject it.
    pub body: Option<Body>,
    members: Members,
}

/// The parts of a well-formed message.
#[derive(Debug)]
pub struct Body {
    /// `origin.name`, empty if it is null or missing.
    pub node: String,
    /// `parameters.extra_args`.
    pub extra_args: Vec<String>,
    /// `parameters.alert`, byte for byte; `{}` if missing.
    pub alert: RawJson,
}

/// Longest order id that is taken over.
const ORDER_ID: usize = 128;

/// Understands one datagram. Only the text before the first NUL counts (C senders end with one), and of that only the
/// first JSON value.
///
/// # Errors
/// When there is no command to obey.
pub fn parse(datagram: &[u8]) -> Result<Request, Fault> {
    let text = datagram.split(|byte| *byte == 0).next().unwrap_or_default();
    // Names of files and users need not be UTF-8; a replaced letter harms less than an unanswered attack.
    let text = String::from_utf8_lossy(text);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<RawJson>();
    let Some(Ok(value)) = values.next() else { return Err(Fault::NotJson) };
    let members = Members::of(&value).ok_or(Fault::NoCommand)?;
    let command = members.text("command").ok_or(Fault::NoCommand)?;
    let order_id = members.find("threatlockdown").and_then(order_id);
    let body = body(&members);
    Ok(Request { command, order_id, body, members })
}

fn body(members: &Members) -> Option<Body> {
    let is_number = |raw: &RawValue| raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    members.find("version").filter(|version| is_number(version))?;
    let origin = members.find("origin").and_then(Members::of)?;
    let parameters = members.find("parameters").and_then(Members::of)?;
    let extra_args: Vec<serde_json::Value> = parameters.parse("extra_args").unwrap_or_default();
    Some(Body {
        node: origin.text("name").unwrap_or_default(),
        extra_args: extra_args.iter().filter_map(|one| one.as_str()).map(str::to_owned).collect(),
        alert: parameters.find("alert").map_or_else(|| empty_object().to_owned(), RawValue::to_owned),
    })
}

fn empty_object() -> &'static RawValue {
    serde_json::from_str("{}").unwrap_or(RawValue::NULL)
}

/// Ids go into files, logs and tables: only plain ones are taken.
fn order_id(raw: &RawValue) -> Option<String> {
    let id = match Members::of(raw) {
        Some(members) => members.text("order")?,
        None => serde_json::from_str(raw.get()).ok()?,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (!id.is_empty() && id.len() <= ORDER_ID && id.bytes().all(plain)).then_some(id)
}

impl Request {
    /// The message as an executable gets it: what was received with `command`, `origin.module` and
    /// `parameters.program` changed, on one line without its newline.
    pub fn line(&self, command: &str, program: &str) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut members = self.members.clone();
        members.set("command", text(command));
        if let Some(mut origin) = members.find("origin").and_then(Members::of) {
            origin.set("module", text("wazuh-execd"));
            members.set("origin", origin.to_string());
        }
        if let Some(mut parameters) = members.find("parameters").and_then(Members::of) {
            parameters.set("program", text(program));
            members.set("parameters", parameters.to_string());
        }
        // Within texts JSON has no bare control characters; between tokens blanks mean the same.
        members.to_string().replace(|c: char| c < ' ', " ")
    }
}

/// An object whose members keep their order and bytes; names are looked up without regard to case, the first wins.
#[derive(Debug, Clone)]
struct Members(Vec<(String, RawJson)>);

impl Members {
    fn of(raw: &RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    fn find(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    fn parse<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Option<T> {
        serde_json::from_str(self.find(name)?.get()).ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.parse(name)
    }

    /// In place, or behind the others. Not JSON leaves everything as it is.
    fn set(&mut self, name: &str, json: String) {
        let Ok(value) = RawValue::from_string(json) else { return };
        match self.0.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (n, (key, value)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}", serde_json::Value::from(key.as_str()), value.get())?;
        }
        f.write_str("}")
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, RawJson>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A member of an alert along a path, without regard to case.
pub(crate) fn at(alert: &RawValue, path: &[&str]) -> Option<String> {
    let (last, folders) = path.split_last()?;
    let mut members = Members::of(alert)?;
    for folder in folders {
        members = Members::of(members.find(folder)?)?;
    }
    let value = members.find(last)?;
    // A rule id may stand there as a number.
    Some(serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version":1,"origin":{"name":"node01","module":"wazuh-analysisd"},"command":"firewall-drop600","parameters":{"extra_args":["-x"],"alert":{"z":1, "data":{"srcip":"203.0.113.7"}}}}"#;

    #[test]
    fn a_message_is_taken_with_and_without_nul_and_with_rubbish_behind_it() {
        for end in ["", "\0", "\0{\"x\":1}", " - null (from_the_server) (no_rule_id)", "}}}", "{}"] {
            let request = parse(format!("{GOOD}{end}").as_bytes()).unwrap();
            let body = request.body.unwrap();
            assert_eq!((request.command.as_str(), body.node.as_str()), ("firewall-drop600", "node01"));
            assert_eq!(body.extra_args, ["-x"]);
            assert_eq!(body.alert.get(), r#"{"z":1, "data":{"srcip":"203.0.113.7"}}"#, "verbatim");
        }
    }

    #[test]
    fn faults_have_the_catalogues_numbers() {
        let code = |text: &str| parse(text.as_bytes()).unwrap_err().code();
        for text in ["", "unknown", "{", "{\"command\":\"x\"", "\0{}", "\u{1}"] {
            assert_eq!(code(text), 1315, "{text}");
        }
        for text in ["{}", "[]", "1", "\"command\"", r#"{"command":1}"#, r#"{"command":null}"#] {
            assert_eq!(code(text), 1316, "{text}");
        }
    }

    #[test]
    fn names_of_members_are_found_in_any_case_and_the_first_counts() {
        let text = r#"{"VERSION":1,"Origin":{"NAME":null},"Command":"a1","COMMAND":"b2","Parameters":{"ALERT":{"Data":{"SrcIP":"1.2.3.4"}}}}"#;
        let request = parse(text.as_bytes()).unwrap();
        assert_eq!(request.command, "a1");
        let body = request.body.unwrap();
        assert_eq!(body.node, "");
        assert_eq!(at(&body.alert, &["data", "srcip"]).as_deref(), Some("1.2.3.4"));
    }

    #[test]
    fn what_is_not_well_formed_is_kept_for_the_executable_to_reject() {
        for text in [
            r#"{"origin":{},"command":"a","parameters":{}}"#,
            r#"{"version":"1","origin":{},"command":"a","parameters":{}}"#,
            r#"{"version":1,"origin":"x","command":"a","parameters":{}}"#,
            r#"{"version":1,"origin":{},"command":"a","data":{}}}}}"#,
            r#"{"version":1,"origin":{},"command":"a","parameters":[]}"#,
        ] {
            assert!(parse(text.as_bytes()).unwrap().body.is_none(), "{text}");
        }
    }

    #[test]
    fn the_executables_line_is_the_message_with_three_members_changed() {
        let line = parse(GOOD.as_bytes()).unwrap().line("add", "active-response/bin/firewall-drop");
        let expected = GOOD
            .replace("wazuh-analysisd", "wazuh-execd")
            .replace("firewall-drop600", "add")
            .replace("}}}}", "}},\"program\":\"active-response/bin/firewall-drop\"}}");
        assert_eq!(line, expected);
        let broken = parse(b"{\"command\":\"x\",\n\"data\":{}}").unwrap();
        assert_eq!(broken.line("add", "p"), r#"{"command":"add","data":{}}"#);
    }

    #[test]
    fn only_plain_order_ids_are_taken() {
        let id = |json: &str| {
            parse(format!(r#"{{"command":"a","threatlockdown":{json}}}"#).as_bytes()).unwrap().order_id
        };
        assert_eq!(id("\"18f-2a-1\"").as_deref(), Some("18f-2a-1"));
        assert_eq!(id(r#"{"order":"18f-2a-1"}"#).as_deref(), Some("18f-2a-1"));
        for bad in ["\"\"", "\"a b\"", "\"a\\n\"", "1", "{}", "\"../x/y\""] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(datagram: Vec<u8>) {
            let _ = parse(&datagram);
        }

        #[test]
        fn a_damaged_message_is_answered_and_its_line_stays_one_line(
            at in 0..GOOD.len(), byte: u8, cut in 0..GOOD.len()
        ) {
            let mut datagram = GOOD.as_bytes().to_vec();
            datagram[at] = byte;
            for one in [&datagram[..], &datagram[..cut]] {
                if let Ok(request) = parse(one) {
                    assert!(!request.line("add", "p").contains('\n'));
                }
            }
        }

        #[test]
        fn texts_survive(command: String, argument: String) {
            let text = serde_json::json!({
                "version": 1, "origin": {}, "command": command, "parameters": { "extra_args": [argument] }
            }).to_string();
            let request = parse(text.as_bytes()).unwrap();
            assert_eq!(request.command, command);
            assert_eq!(request.body.unwrap().extra_args, [argument]);
        }

        #[test]
        fn nesting_is_no_danger(depth in 0..30_000_usize) {
            let text = format!(r#"{{"command":"a","parameters":{{"alert":{}}}}}"#, "[".repeat(depth));
            let _ = parse(text.as_bytes());
        }
    }
}
