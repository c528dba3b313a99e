//! Alerts that another manager forwarded as text: the named rule is raised here again.
//!
//! The text says which rule fires, so only rules that exist here are accepted, and only from logs that a
//! decoder with this plugin chose.

use std::borrow::Cow;
use std::collections::HashSet;

use tld_model::RuleId;

use super::Cursor;
use crate::{Decoded, StaticField, Value};

/// Longest combined location.
const LOCATION_LENGTH: usize = 255;
/// Longest text of the original event.
const TEXT_LENGTH: usize = 4094;

pub(in crate::decoder) fn decode<'e>(
    decoded: &mut Decoded<'e>,
    log: &mut Value<'e>,
    rules: &HashSet<RuleId>,
) -> Option<RuleId> {
    let mut cursor = Cursor::new(log);
    if !log.starts_with(b"Alert Level:") && !log.starts_with(b"ossec: Alert Level") {
        return None;
    }
    cursor.pass(b";")?;
    cursor.pass(b": ")?;
    let digits = cursor.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rule = std::str::from_utf8(cursor.rest().get(..digits)?).ok()?.parse::<RuleId>().ok()?;
    if !rules.contains(&rule) {
        return None;
    }
    cursor.pass(b" Location: ")?;
    let place = cursor.until(b';')?;
    let mut location = decoded.location.to_vec();
    location.push(b'|');
    location.extend_from_slice(&place);
    location.truncate(LOCATION_LENGTH);
    let mut found = Vec::new();
    loop {
        let start = cursor.at;
        let entry = cursor.take(b" ").and_then(|()| {
            let field = if cursor.take(b"srcip: ").is_some() {
                StaticField::SrcIp
            } else {
                cursor.take(b"user: ")?;
                StaticField::DstUser
            };
            Some((field, cursor.until(b';')?))
        });
        if let Some(entry) = entry {
            found.push(entry);
        } else {
            cursor.at = start;
            break;
        }
    }
    let _ = cursor.take(b" ");
    let rest = cursor.rest();
    let text = rest.get(..rest.len().min(TEXT_LENGTH))?.to_vec();
    for (field, value) in found {
        decoded.set(field, &value);
    }
    decoded.set_hostname(&location);
    decoded.location = Cow::Owned(location);
    decoded.full_log = Cow::Owned(text.clone());
    *log = Cow::Owned(text);
    Some(rule)
}
