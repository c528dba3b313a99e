//! A parsed value, and how fields show it.

use std::borrow::Cow;

use super::Parser;

/// A parsed value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::decoder) enum Json<'t> {
    Null,
    Bool(bool),
    Number(f64),
    String(Cow<'t, [u8]>),
    Array(Vec<Self>),
    Object(Vec<(Cow<'t, [u8]>, Self)>),
}

impl<'t> Json<'t> {
    /// The value at the start of the text; blanks before it and anything behind it are allowed.
    pub(in crate::decoder) fn parse(text: &'t [u8]) -> Option<Self> {
        Parser::new(text).value(0)
    }

    /// The first member of that exact name.
    pub(in crate::decoder) fn member(&self, name: &[u8]) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(key, _)| **key == *name).map(|(_, value)| value)
    }

    /// Indented text: what an array looks like in a field.
    pub(in crate::decoder) fn pretty(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, Some(0));
        out
    }

    /// Text without any blanks.
    pub(in crate::decoder) fn compact(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, None);
        out
    }

    /// `depth` is the number of values around this one when indenting, none for compact text.
    pub(super) fn write(&self, out: &mut Vec<u8>, depth: Option<usize>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Number(value) => out.extend_from_slice(shortest(*value).as_bytes()),
            Self::String(text) => write_string(text, out),
            Self::Array(elements) => {
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.extend_from_slice(if depth.is_some() { b", " } else { b"," });
                    }
                    element.write(out, depth.map(|depth| depth + 1));
                }
                out.push(b']');
            }
            Self::Object(members) => Self::write_object(members, out, depth),
        }
    }

    fn write_object(members: &[(Cow<'t, [u8]>, Self)], out: &mut Vec<u8>, depth: Option<usize>) {
        out.push(b'{');
        if depth.is_some() {
            out.push(b'\n');
        }
        for (index, (key, value)) in members.iter().enumerate() {
            out.extend(std::iter::repeat_n(b'\t', depth.map_or(0, |depth| depth + 1)));
            write_string(key, out);
            out.push(b':');
            if depth.is_some() {
                out.push(b'\t');
            }
            value.write(out, depth.map(|depth| depth + 1));
            if index + 1 < members.len() {
                out.push(b',');
            }
            if depth.is_some() {
                out.push(b'\n');
            }
        }
        out.extend(std::iter::repeat_n(b'\t', depth.unwrap_or(0)));
        out.push(b'}');
    }
}

/// A number as a field: an integer if it fits into 32 bits, six decimals otherwise.
pub(in crate::decoder) fn field_number(value: f64) -> String {
    match integer(value) {
        Some(integer) => integer.to_string(),
        None if value.is_infinite() => (if value > 0.0 { "inf" } else { "-inf" }).into(),
        None => format!("{value:.6}"),
    }
}

fn integer(value: f64) -> Option<i32> {
    // A float cast saturates, which is what the contract's conversion does.
    let integer = value as i32;
    (f64::from(integer) == value).then_some(integer)
}

/// A number inside JSON text: 15 significant digits, 17 if those do not read back the same.
fn shortest(value: f64) -> String {
    if let Some(integer) = integer(value) {
        return integer.to_string();
    }
    if !value.is_finite() {
        return "null".into();
    }
    let text = general(value, 15);
    if text.parse::<f64>().is_ok_and(|read| (read - value).abs() <= value.abs() * f64::EPSILON) {
        text
    } else {
        general(value, 17)
    }
}

/// C's `%.<digits>g`.
fn general(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let wide = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= wide {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.unsigned_abs());
    }
    let decimals = usize::try_from(wide - 1 - exponent).unwrap_or(0);
    trim(&format!("{value:.decimals$}"))
}

/// A string with quotes and the standard escapes; bytes above ASCII are copied.
pub(super) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}
