//! The three phases as operators know them (analysis-output 6.3).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use serde_json::Value;
use serde_json::value::RawValue;
use tld_rules::{Analyzer, Verdict};

use super::{batch, printable};
use crate::paint::Paint;

/// Levels from which an alert is an attack rather than a remark.
const SERIOUS: u8 = 7;

/// All phases of one event, with the way through the rules between them if there is one.
pub(super) fn text(
    analyzer: &Analyzer,
    verdict: &Verdict<'_>,
    debug: Option<&[String]>,
    paint: Paint,
) -> io::Result<String> {
    let parts = batch::parts(analyzer, verdict)?;
    let mut out = format!("\n{}\n", paint.strong("**Phase 1: Completed pre-decoding."));
    if let Some(log) = &parts.full_log {
        member(&mut out, "full event", &value(log));
    }
    let mut early = members(parts.predecoder.as_deref());
    for name in ["timestamp", "hostname", "program_name"] {
        if let Some(value) = early.remove(name) {
            member(&mut out, name, &value);
        }
    }
    out.push_str(&format!("\n{}\n", paint.strong("**Phase 2: Completed decoding.")));
    let decoder = members(parts.decoder.as_deref());
    if decoder.is_empty() {
        out.push_str("\tNo decoder matched.\n");
    } else {
        all(&mut out, decoder, &["name", "parent"]);
        match parts.data.as_deref().map(value) {
            None => {}
            Some(Value::Object(data)) => all(&mut out, data.into_iter().collect(), &[]),
            // Nested deeper than the reader follows.
            Some(other) => member(&mut out, "data", &other),
        }
    }
    if let Some(lines) = debug {
        out.push_str(&format!("\n{}\n", paint.strong("**Rule debugging:")));
        for line in lines {
            let indent = if line.starts_with('*') { "\t\t" } else { "\t" };
            let _ = writeln!(out, "{indent}{}", printable(line));
        }
    }
    if let Some(rule) = &verdict.rule {
        out.push_str(&format!("\n{}\n", paint.strong("**Phase 3: Completed filtering (rules).")));
        all(
            &mut out,
            members(parts.rule.as_deref()),
            &["id", "level", "description", "groups", "firedtimes"],
        );
        if verdict.alert_flag {
            let text = "**Alert to be generated.";
            let text = if rule.level >= SERIOUS { paint.bad(text) } else { paint.warn(text) };
            let _ = writeln!(out, "{text}");
        }
    }
    contested(&mut out, verdict, paint);
    Ok(out)
}

/// Says that whoever wrote the line may have chosen the target of responses.
fn contested(out: &mut String, verdict: &Verdict<'_>, paint: Paint) {
    let Some(alert) = verdict.alert.as_ref().filter(|alert| !alert.contested.is_empty()) else { return };
    let _ = writeln!(
        out,
        "\n{}",
        paint.warn("**Contested: the line offers other values for what responses act on.")
    );
    for (field, value) in &alert.contested {
        let _ = writeln!(out, "\t{field}: also '{}'", printable(&String::from_utf8_lossy(value)));
    }
    out.push_str(
        "\tresponses on them are refused; <contested>first</contested> or last in a response acts anyway\n",
    );
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| Value::String(raw.get().to_owned()))
}

/// Members by name: the map of the JSON reader has an order of its own choice.
type Members = BTreeMap<String, Value>;

fn members(raw: Option<&RawValue>) -> Members {
    match raw.map(value) {
        Some(Value::Object(members)) => members.into_iter().collect(),
        _ => Members::new(),
    }
}

/// The members named `first` in that order, then the others by name, nested ones as `a.b.c`.
fn all(out: &mut String, mut members: Members, first: &[&str]) {
    for name in first {
        if let Some(value) = members.remove(*name) {
            member(out, name, &value);
        }
    }
    for (name, value) in members {
        nested(out, &name, &value);
    }
}

fn nested(out: &mut String, path: &str, value: &Value) {
    match value {
        // As deep as the JSON reader goes, which is bounded.
        Value::Object(members) => {
            let members: BTreeMap<&String, &Value> = members.iter().collect();
            members.into_iter().for_each(|(name, value)| nested(out, &format!("{path}.{name}"), value));
        }
        value => member(out, path, value),
    }
}

fn member(out: &mut String, name: &str, value: &Value) {
    let text = match value {
        Value::String(text) => printable(text),
        value => printable(&literal(value)),
    };
    let _ = writeln!(out, "\t{}: '{text}'", printable(name));
}

/// The text form that existing scripts read: lists as `['a', 'b']`, `True`, `None`.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{}: {}", quoted(name), literal(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\");
    match (text.contains('\''), text.contains('"')) {
        (false, _) => format!("'{text}'"),
        (true, false) => format!("\"{text}\""),
        (true, true) => format!("'{}'", text.replace('\'', "\\'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_text_form_that_scripts_expect() {
        let value = serde_json::json!([true, null, 1.5, "it's", {"a": "\\"}]);
        assert_eq!(literal(&value), r#"[True, None, 1.5, "it's", {'a': '\\'}]"#);
    }

    #[test]
    fn members_come_in_order_and_nested_ones_with_their_path() {
        let Value::Object(members) = serde_json::json!({"b": {"y": ["1"], "x": 2}, "a": "z", "id": "5"})
        else {
            return;
        };
        let mut out = String::new();
        all(&mut out, members.into_iter().collect(), &["id"]);
        assert_eq!(out, "\tid: '5'\n\ta: 'z'\n\tb.x: '2'\n\tb.y: '['1']'\n");
    }
}
