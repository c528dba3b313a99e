//! The active-response message of the contract (active-response 4.1 and 7): one JSON object in one line.

use serde::{Deserialize, Serialize};

/// JSON carried as it came, never re-parsed (an alert keeps its byte order).
pub type RawJson = Box<serde_json::value::RawValue>;

/// `origin` of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Cluster node, or script name in `check_keys`.
    pub name: Option<String>,
    /// `wazuh-analysisd`, `wazuh-execd`, `active-response`, `API` …
    pub module: String,
}

/// `parameters` of a message to a script. Field order is the contract's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Parameters {
    /// Extra arguments of the command, always present.
    #[serde(default)]
    pub extra_args: Vec<String>,
    /// The complete alert.
    pub alert: RawJson,
    /// Path of the executable, relative to the home; added by the responder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// The message itself: from the manager to the responder (`command` = response name) and from the responder to the
/// script (`add`, `delete`, `continue`, `abort`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecMessage {
    /// Always 1.
    pub version: u32,
    /// Sender.
    pub origin: Origin,
    /// Response name or verb.
    pub command: String,
    /// Arguments and alert.
    pub parameters: Parameters,
}

impl ExecMessage {
    /// One line without the newline.
    ///
    /// # Errors
    /// Never for values built from valid JSON; the error of the JSON library otherwise.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_in_the_contracts_order_and_the_alert_is_verbatim() {
        let alert =
            RawJson::from(serde_json::value::RawValue::from_string(r#"{"z":1,"a":"/"}"#.into()).unwrap());
        let message = ExecMessage {
            version: 1,
            origin: Origin { name: Some("node01".into()), module: "wazuh-execd".into() },
            command: "add".into(),
            parameters: Parameters {
                extra_args: vec![],
                alert,
                program: Some("active-response/bin/firewall-drop".into()),
            },
        };
        assert_eq!(
            message.to_line().unwrap(),
            r#"{"version":1,"origin":{"name":"node01","module":"wazuh-execd"},"command":"add","parameters":{"extra_args":[],"alert":{"z":1,"a":"/"},"program":"active-response/bin/firewall-drop"}}"#
        );
    }
}
