//! What a file that is not ours is told, in the three forms that operators' files were written for: the JSON line of
//! 4.2 and later, the words on the command line of the versions before, and the flat document of 5.x (active-response
//! 7, 12.1 and 12.2).
//! Invariant: a value that an attacker chose is one argument or one JSON text, and never looks like an option.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use tld_model::{Contract, ExecMessage, Order};

use crate::actions::firewall_drop::fields;
use crate::executor::keys_line;
use crate::member;
use crate::script::{self, Verb};

/// An order in the form its file understands.
#[derive(Debug)]
pub(crate) enum Dialect {
    Four(ExecMessage),
    Argv(Vec<String>),
    Five(Map<String, Value>),
}

impl Dialect {
    /// The form that the order asks for.
    pub(crate) fn of(order: &Order, program: &str) -> Self {
        let alert = || script::alert(&order.alert);
        match order.options.contract {
            Contract::Four => Self::Four(script::message(order, program, "add")),
            Contract::Argv => Self::Argv(argv(order, &alert())),
            Contract::Five => Self::Five(document(order, program, &alert())),
        }
    }

    /// The arguments of a file that is told everything by them.
    pub(crate) fn words(&self, verb: Verb) -> Option<Vec<String>> {
        let Self::Argv(rest) = self else { return None };
        let verb = if verb == Verb::Add { "add" } else { "delete" };
        Some(std::iter::once(verb.to_owned()).chain(rest.iter().cloned()).collect())
    }

    /// The key line that such a file cannot send: user and address, as far as there are any.
    pub(crate) fn keys(&self, program: &str) -> Option<String> {
        let Self::Argv(rest) = self else { return None };
        let keys: Vec<&str> = rest.iter().take(2).map(String::as_str).filter(|one| *one != NONE).collect();
        Some(keys_line(program, &keys))
    }

    /// A line of the dialogue; `command` is one of `add`, `delete`, `continue`, `abort`.
    pub(crate) fn line(&self, command: &str) -> Result<String, String> {
        match self {
            Self::Four(message) => {
                let mut message = message.clone();
                message.command = command.into();
                message.to_line().map_err(|error| error.to_string())
            }
            Self::Five(document) => {
                let mut document = document.clone();
                let word = match command {
                    "add" => "enable",
                    "delete" => "disable",
                    other => other,
                };
                document.insert("command".into(), word.into());
                Ok(Value::Object(document).to_string())
            }
            Self::Argv(_) => Ok(String::new()),
        }
    }
}

/// User, address, alert, rule, location, file, extra arguments; what there is not is a hyphen.
fn argv(order: &Order, alert: &Value) -> Vec<String> {
    let text = |path: &str| member::text(alert, path);
    let user = text("data/dstuser").filter(|user| is_plain(user, "._@?-"));
    let address = fields(alert).find_map(|text| match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical().to_string()),
        // Older decoders leave a host's name there.
        Err(_) => Some(text.to_owned()).filter(|name| is_plain(name, ".:_-")),
    });
    let rule = order.rule.map(|rule| rule.to_string()).or_else(|| plain(member::at(alert, "rule/id")));
    let mut words = vec![
        user.map(String::from),
        address,
        Some(order.alert_id.clone()).filter(|id| is_plain(id, "._-")),
        rule.filter(|rule| is_plain(rule, "")),
        location(alert).map(|text| visible(&text)),
        text("syscheck/path").filter(|path| path.starts_with('/')).map(shell_escaped),
    ];
    words.extend(order.extra_args.iter().map(|one| Some(shell_escaped(one))));
    if order.extra_args.is_empty() {
        words.push(None);
    }
    words.into_iter().map(|word| word.unwrap_or_else(|| NONE.into())).collect()
}

/// Values that old files put into command lines without quotes: nothing but these letters, and no option.
fn is_plain(text: &str, marks: &str) -> bool {
    !text.is_empty()
        && text.len() <= MOST_WORD
        && !text.starts_with('-')
        && text.chars().all(|one| one.is_ascii_alphanumeric() || marks.contains(one))
}

/// `(agent) address->log`, or `manager->log` for the manager's own events.
fn location(alert: &Value) -> Option<String> {
    let text = |path: &str| member::text(alert, path);
    let log = text("location").filter(|log| !log.is_empty())?;
    let of_agent = text("agent/id").is_some_and(|id| id.bytes().any(|byte| byte != b'0'));
    Some(match (text("agent/name").filter(|_| of_agent), text("manager/name")) {
        (Some(name), _) => format!("({name}) {}->{log}", text("agent/ip").unwrap_or("any")),
        (None, Some(manager)) => format!("{manager}->{log}"),
        (None, None) => log.to_owned(),
    })
}

fn visible(text: &str) -> String {
    text.chars().take(MOST_WORD).map(|one| if one.is_control() { '_' } else { one }).collect()
}

/// A backslash before what shells read, as those files expect it (active-response 4.4).
fn shell_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut after_backslash = false;
    for one in visible(text).chars() {
        if "\\\"'\t;`><|#*[]{}&$!:()".contains(one) && !after_backslash {
            escaped.push('\\');
        }
        after_backslash = one == '\\' && !after_backslash;
        escaped.push(one);
    }
    escaped
}

fn plain(value: Option<&Value>) -> Option<String> {
    value.map(|value| value.as_str().map_or_else(|| value.to_string(), String::from))
}

/// The alert in the names of 5.x. Only what the contract names is translated; the rest of an alert has no fixed place.
fn document(order: &Order, program: &str, alert: &Value) -> Map<String, Value> {
    let file = program.rsplit('/').next().unwrap_or(program);
    let name = order.response.strip_suffix(&order.timeout_secs.to_string()).unwrap_or(&order.response);
    let mut response = json!({
        "name": name,
        "executable": file,
        "type": if order.timeout_secs > 0 { "stateful" } else { "stateless" },
        "extra_arguments": order.extra_args.join(" "),
    });
    let mut document = Map::new();
    let mut put = |path: &str, value: Option<Value>| {
        if let Some(value) = value.filter(|value| !value.is_null()) {
            insert(&mut document, path, value);
        }
    };
    let at = |path: &str| member::at(alert, path).cloned();
    put("version", Some(1.into()));
    put("origin", Some(json!({ "name": order.node, "module": "wazuh-execd" })));
    put("command", Some("enable".into()));
    put("@timestamp", at("timestamp"));
    if order.timeout_secs > 0 {
        response["stateful_timeout"] = order.timeout_secs.into();
    }
    if let Some(id) = at("agent/id") {
        response["agent_id"] = id;
    }
    put("wazuh/active_response", Some(response));
    put("wazuh/agent", at("agent"));
    put("source/ip", fields(alert).next().map(Value::from));
    for (theirs, ours) in TRANSLATED {
        put(theirs, at(ours));
    }
    document
}

fn insert(document: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('/') {
        None => {
            document.insert(path.into(), value);
        }
        Some((first, rest)) => {
            let inner = document.entry(first).or_insert_with(|| json!({}));
            if let Some(inner) = inner.as_object_mut() {
                insert(inner, rest, value);
            }
        }
    }
}

const NONE: &str = "-";
const MOST_WORD: usize = 4_096;
const TRANSLATED: [(&str, &str); 10] = [
    ("source/port", "data/srcport"),
    ("source/user/name", "data/srcuser"),
    ("destination/ip", "data/dstip"),
    ("destination/port", "data/dstport"),
    ("user/name", "data/dstuser"),
    ("file/path", "syscheck/path"),
    ("rule/id", "rule/id"),
    ("rule/level", "rule/level"),
    ("rule/description", "rule/description"),
    ("event/original", "full_log"),
];

#[cfg(test)]
mod tests;
