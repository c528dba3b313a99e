//! One line of JSON for one line of log.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tld_rules::{Analyzer, Verdict};

/// The parts of the event's object, byte for byte as alerts have them.
#[derive(Debug, Deserialize)]
pub(super) struct Parts {
    pub(super) predecoder: Option<Box<RawValue>>,
    pub(super) decoder: Option<Box<RawValue>>,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) rule: Option<Box<RawValue>>,
    pub(super) previous_output: Option<Box<RawValue>>,
    pub(super) full_log: Option<Box<RawValue>>,
    pub(super) location: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Object<'p> {
    predecoder: &'p RawValue,
    decoder: &'p RawValue,
    data: &'p RawValue,
    rule: Option<&'p RawValue>,
    alert: bool,
    /// Other values that the line offers for what responses act on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    contested: BTreeMap<&'static str, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_output: Option<&'p RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_log: Option<&'p RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'p RawValue>,
}

/// Takes the event's object apart. Bytes that are no UTF-8 become replacement characters, since JSON has no others.
pub(super) fn parts(analyzer: &Analyzer, verdict: &Verdict<'_>) -> io::Result<Parts> {
    let mut bytes = Vec::new();
    analyzer.event_json(verdict).write("", &mut bytes);
    Ok(serde_json::from_str(&String::from_utf8_lossy(&bytes))?)
}

/// The object for one event, with its newline.
pub(super) fn object(analyzer: &Analyzer, verdict: &Verdict<'_>) -> io::Result<Vec<u8>> {
    let parts = parts(analyzer, verdict)?;
    let empty = RawValue::from_string("{}".to_owned())?;
    let object = Object {
        predecoder: parts.predecoder.as_deref().unwrap_or(&empty),
        decoder: parts.decoder.as_deref().unwrap_or(&empty),
        data: parts.data.as_deref().unwrap_or(&empty),
        rule: parts.rule.as_deref(),
        alert: verdict.alert_flag,
        contested: contested(verdict),
        previous_output: parts.previous_output.as_deref(),
        full_log: parts.full_log.as_deref(),
        location: parts.location.as_deref(),
    };
    let mut line = serde_json::to_vec(&object)?;
    line.push(b'\n');
    Ok(line)
}

fn contested(verdict: &Verdict<'_>) -> BTreeMap<&'static str, Vec<String>> {
    let mut fields: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (field, value) in verdict.alert.iter().flat_map(|alert| &alert.contested) {
        fields.entry(*field).or_default().push(String::from_utf8_lossy(value).into_owned());
    }
    fields
}
