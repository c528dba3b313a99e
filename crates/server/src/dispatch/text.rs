//! The alert as an order carries it, never longer than the message of an order may be.
//! Invariant: no length that an attacker chooses makes an order undeliverable.

use serde_json::value::RawValue;
use tld_model::Alert;

/// Longest alert that an order carries whole: with what stands around it, one sealed message to an agent.
const MOST_TEXT: usize = 60 << 10;
/// Longest single text of an alert that had to be shortened, and the shortest that it may be cut to.
const MOST_STRING: usize = 8 << 10;
const LEAST_STRING: usize = 256;
const MOST_LEVELS: usize = 32;

/// An alert grown beyond what an order can carry: without the events that led to it, and with long texts cut. An attacker
/// chooses how long the lines are, and no length may make the order undeliverable; `alerts.json` keeps everything.
fn shortened(text: &str) -> Option<String> {
    // Deep nesting is for an attacker as good as length: it is left out too.
    let mut alert = tld_model::read_shallow(text.as_bytes(), MOST_LEVELS)?;
    let fields = alert.as_object_mut()?;
    fields.remove("previous_output");
    fields.remove("previous_log");
    let mut most = MOST_STRING;
    loop {
        cut(&mut alert, most);
        let text = alert.to_string();
        // Hundreds of long fields: shorter still, but never so short that an address or a name would be cut.
        if text.len() <= MOST_TEXT || most <= LEAST_STRING {
            return Some(text);
        }
        most /= 2;
    }
}

/// Cuts every text in `value` to at most `most` bytes.
fn cut(value: &mut serde_json::Value, most: usize) {
    match value {
        serde_json::Value::String(text) => text.truncate(text.floor_char_boundary(most)),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| cut(item, most)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, most)),
        _ => {}
    }
}

/// The alert as the order carries it. Bytes that are not UTF-8 are replaced, since the message to a script is text.
pub(super) fn alert_text(alert: &Alert, id: &str) -> Box<RawValue> {
    let mut json = Vec::new();
    alert.json.write(id, &mut json);
    let text =
        String::from_utf8(json).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned());
    let text = if text.len() > MOST_TEXT { shortened(&text).unwrap_or(text) } else { text };
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_too_long_for_an_order_loses_its_history_and_its_tails_but_not_its_address() {
        let long = "\\\"".repeat(40_000);
        let text = serde_json::json!({
            "rule": { "level": 10, "id": "31151" }, "previous_output": long, "full_log": long,
            "data": { "srcip": "198.51.100.9", "url": long },
        })
        .to_string();
        let short = shortened(&text).unwrap();
        assert!(short.len() <= MOST_TEXT, "{}", short.len());
        let alert: serde_json::Value = serde_json::from_str(&short).unwrap();
        assert_eq!(alert["data"]["srcip"], "198.51.100.9");
        assert_eq!(alert["rule"]["id"], "31151");
        assert!(alert.get("previous_output").is_none());
        assert_eq!(alert["full_log"].as_str().map(str::len), Some(MOST_STRING));
    }

    #[test]
    fn many_long_fields_are_cut_further() {
        let data: serde_json::Map<_, _> =
            (0..200).map(|n| (format!("f{n}"), "é".repeat(3_000).into())).collect();
        let short = shortened(&serde_json::json!({ "data": data }).to_string()).unwrap();
        assert!(short.len() <= MOST_TEXT, "{}", short.len());
    }
}
