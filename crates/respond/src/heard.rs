//! What a daemon tells one of our executables: the line of 4.2 and later as it is, the document of 5.x put into its form
//! (active-response 7.2 and 12.2).
//! Invariant: what is well formed in neither way is nothing, and only texts are taken over from a document.

use serde_json::{Map, Value, json};
use tld_model::read_shallow;

use crate::member;
use crate::script::{MESSAGE_LEVELS, parse_message};

/// A message in the form of 4.2 and later.
pub(crate) fn message(line: &[u8]) -> Option<Value> {
    parse_message(line).or_else(|| document(line))
}

fn document(line: &[u8]) -> Option<Value> {
    let document = read_shallow(line, MESSAGE_LEVELS)?;
    let command = match member::text(&document, "command")? {
        "enable" => "add",
        "disable" => "delete",
        other => other,
    };
    text(&document, &["wazuh", "active_response", "executable"])?;
    let mut data = Map::new();
    let mut put = |name: &str, path: &[&str]| {
        if let Some(text) = text(&document, path) {
            data.insert(name.into(), text.into());
        }
    };
    put("srcip", &["source", "ip"]);
    put("dstuser", &["user", "name"]);
    put("file", &["file", "path"]);
    put("exe", &["process", "executable"]);
    if let Some(pid) = at(&document, &["process", "pid"]) {
        data.insert("pid".into(), pid.clone());
    }
    let arguments = text(&document, &["wazuh", "active_response", "extra_arguments"]).unwrap_or_default();
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let alert = json!({
        "data": data, "full_log": text(&document, &["event", "original"]), "agent": at(&document, &["wazuh", "agent"]),
        "rule": at(&document, &["rule"]),
    });
    Some(json!({
        "version": 1, "origin": {}, "command": command, "parameters": { "extra_args": arguments, "alert": alert }
    }))
}

fn text<'v>(document: &'v Value, path: &[&str]) -> Option<&'v str> {
    at(document, path)?.as_str()
}

/// A member by its path, whether its names stand within each other or are joined by points.
fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(value);
    }
    let object = value.as_object()?;
    // The longest name first: a joined one is more exact.
    (1..=path.len()).rev().find_map(|length| {
        let (first, rest) = path.split_at(length);
        at(member::find(object, &first.join("."))?, rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_understood_with_its_names_nested_or_joined() {
        let nested = r#"{"command":"enable","source":{"ip":"192.0.2.1"},"user":{"name":"bob"},"process":{"pid":7},
            "wazuh":{"active_response":{"executable":"block-ip","extra_arguments":"a  b"}}}"#;
        let joined = r#"{"command":"enable","source.ip":"192.0.2.1","user.name":"bob","process.pid":7,
            "wazuh.active_response":{"executable":"block-ip","extra_arguments":"a b"}}"#;
        for text in [nested, joined] {
            let message = message(text.as_bytes()).unwrap();
            assert_eq!(message["command"], "add");
            let parameters = &message["parameters"];
            assert_eq!(
                parameters["alert"]["data"],
                json!({"srcip": "192.0.2.1", "dstuser": "bob", "pid": 7})
            );
            assert_eq!(parameters["extra_args"], json!(["a", "b"]));
        }
    }

    #[test]
    fn what_is_neither_form_is_nothing() {
        for text in [
            "{}",
            r#"{"command":"enable","source":{"ip":"192.0.2.1"}}"#,
            r#"{"command":"add","version":1,"origin":{},"data":{"srcip":"192.0.2.1"}}"#,
            r#"{"command":7,"wazuh":{"active_response":{"executable":"x"}}}"#,
            "enable",
        ] {
            assert_eq!(message(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_message_or_nothing(line: Vec<u8>) {
            let _ = message(&line);
        }
    }
}
