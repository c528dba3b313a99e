//! Windows events: JSON around XML becomes the `win` object that rules for Windows are written against
//! (analysis-decoders 7).
//!
//! The XML is read as it stands inside the JSON text, escapes included, so a path keeps its doubled backslashes:
//! existing rules expect them.

use std::borrow::Cow;

use tld_xml::{Element, Source};

use super::json::Json;
use super::plugin::json::fill;
use super::{Decoders, JsonOptions};
use crate::Decoded;

mod audit;

/// Members of an object under construction.
type Members = Vec<(Cow<'static, [u8]>, Json<'static>)>;

/// Rewrites the event and fills its fields; an event that cannot be read keeps its text and has no fields.
pub(super) fn decode(decoded: &mut Decoded<'_>, decoders: &Decoders) {
    decoded.program_name = None;
    decoded.timestamp = None;
    let Some(object) = rewrite(&decoded.log) else { return };
    let text = object.compact();
    fill(decoded, object, JsonOptions::default(), decoders);
    decoded.full_log = Cow::Owned(text.clone());
    decoded.log = Cow::Owned(text);
}

fn rewrite(log: &[u8]) -> Option<Json<'static>> {
    let input = Json::parse(log)?;
    let Json::String(event) = input.member(b"Event")? else { return None };
    let roots = parse_event(event)?;
    let root = roots.first()?;
    let mut system = Members::new();
    let mut data = Members::new();
    let mut others = Members::new();
    for top in &root.children {
        match top.name.as_str() {
            "System" => read_system(top, &mut system),
            "EventData" => read_data(top, &mut data),
            _ => read_other(top, &mut others),
        }
    }
    if let Some(severity) = severity(&system) {
        push(&mut system, "severityValue", severity.into());
    }
    if let Some(Json::String(text)) = input.member(b"Message") {
        let mut quoted = Vec::with_capacity(text.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(trim_end(text));
        quoted.push(b'"');
        push(&mut system, "message", quoted);
    }
    let mut win = Members::new();
    if !system.is_empty() {
        win.push((Cow::Borrowed(b"system"), Json::Object(system)));
    }
    if !data.is_empty() {
        win.push((Cow::Borrowed(b"eventdata"), Json::Object(data)));
    }
    win.extend(others);
    Some(Json::Object(vec![(Cow::Borrowed(b"win"), Json::Object(win))]))
}

/// Senders quote attributes with apostrophes, which survive JSON; others are read without the JSON escapes.
fn parse_event(event: &[u8]) -> Option<Vec<Element>> {
    let quoted = Json::String(Cow::Borrowed(event)).compact();
    let escaped = quoted.get(1..quoted.len().saturating_sub(1))?;
    let parse =
        |text: &[u8]| tld_xml::parse(&Source::new("event", text)).ok().filter(|roots| !roots.is_empty());
    parse(escaped).or_else(|| parse(event))
}

fn read_system(system: &Element, out: &mut Members) {
    for child in &system.children {
        let attribute = |name: &str| child.attribute(name).map(|attribute| attribute.value.clone());
        let wanted: &[(&str, &str)] = match child.name.as_str() {
            "Provider" => {
                &[("Name", "providerName"), ("Guid", "providerGuid"), ("EventSourceName", "eventSourceName")]
            }
            "TimeCreated" => &[("SystemTime", "systemTime")],
            "Execution" => &[("ProcessID", "processID"), ("ThreadID", "threadID")],
            "Correlation" => continue,
            _ => {
                let text = trim_end(&child.content);
                if !text.is_empty() {
                    push(out, &lower_first(&child.name), text.to_vec());
                }
                continue;
            }
        };
        for (name, key) in wanted {
            if let Some(value) = attribute(name) {
                push(out, key, value);
            }
        }
    }
}

fn read_data(event_data: &Element, out: &mut Members) {
    let mut unnamed: Vec<&[u8]> = Vec::new();
    for child in &event_data.children {
        let text = trim_end(&child.content);
        if matches!(text, b"" | b"-" | b"(NULL)") {
            continue;
        }
        if child.name != "Data" {
            push(out, &lower_first(&child.name), text.to_vec());
            continue;
        }
        match child.attribute("Name") {
            Some(name) => read_named(&lower_first(&name.text()), text, out),
            None if child.attributes.is_empty() => unnamed.push(text),
            None => {}
        }
    }
    if !unnamed.is_empty() {
        push(out, "data", unnamed.join(&b", "[..]));
    }
}

fn read_named(name: &str, text: &[u8], out: &mut Members) {
    match name {
        "auditPolicyChanges" => {
            push(out, "auditPolicyChangesId", text.to_vec());
            let changes: Vec<&str> = audit::codes(text).filter_map(audit::policy_change).collect();
            if !changes.is_empty() {
                push(out, name, changes.join(", ").into_bytes());
            }
        }
        "categoryId" | "subcategoryId" => {
            push(out, name, text.to_vec());
            let (key, table): (_, fn(u32) -> Option<&'static str>) = match name {
                "categoryId" => ("category", audit::category),
                _ => ("subcategory", audit::subcategory),
            };
            if let Some(value) = audit::codes(text).find_map(table) {
                push(out, key, value.into());
            }
        }
        _ => push(out, name, text.to_vec()),
    }
}

/// `UserData` and the like hold one element more: its children are the values.
fn read_other(top: &Element, out: &mut Members) {
    for inner in &top.children {
        let values: Members = inner
            .children
            .iter()
            .filter(|value| !trim_end(&value.content).is_empty())
            .map(|value| (key(&lower_first(&value.name)), text(trim_end(&value.content).to_vec())))
            .collect();
        if !values.is_empty() {
            out.push((key(&lower_first(&inner.name)), Json::Object(values)));
        }
    }
}

fn severity(system: &Members) -> Option<&'static str> {
    let find = |name: &str| {
        let value = system.iter().find(|(key, _)| **key == *name.as_bytes()).map(|(_, value)| value);
        match value {
            Some(Json::String(text)) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    };
    let (level, keywords) = (find("level")?, find("keywords")?);
    let bits =
        keywords.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
    Some(match level {
        "1" => "CRITICAL",
        "2" => "ERROR",
        "3" => "WARNING",
        "4" => "INFORMATION",
        "5" => "VERBOSE",
        "0" if bits & 0x10_0000_0000_0000 != 0 => "AUDIT_FAILURE",
        "0" if bits & 0x20_0000_0000_0000 != 0 => "AUDIT_SUCCESS",
        _ => "UNKNOWN",
    })
}

fn push(out: &mut Members, name: &str, value: Vec<u8>) {
    out.push((key(name), text(value)));
}

fn key(name: &str) -> Cow<'static, [u8]> {
    Cow::Owned(name.as_bytes().to_vec())
}

fn text(value: Vec<u8>) -> Json<'static> {
    Json::String(Cow::Owned(value))
}

fn lower_first(name: &str) -> String {
    let mut name = name.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    name
}

fn trim_end(text: &[u8]) -> &[u8] {
    text.trim_ascii_end()
}
