//! `custom_alert_output`: the operator's form of alerts.log, one line per alert (analysis-output 2).
//!
//! Invariant: a rendered alert is one line whatever the event holds, because senders choose the values.

use super::Picture;
use super::page::Page;
use crate::StaticField;

/// What stands in for a value that the event lacks.
const ABSENT: &[u8] = b"None";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Timestamp,
    Offset,
    Mail,
    Host,
    Location,
    RuleId,
    Level,
    SrcIp,
    DstUser,
    FullLog,
    Description,
    Groups,
}

const TOKENS: [(&str, Token); 12] = [
    ("TIMESTAMP", Token::Timestamp),
    ("FTELL", Token::Offset),
    ("RULEALERT", Token::Mail),
    ("HOSTNAME", Token::Host),
    ("LOCATION", Token::Location),
    ("RULEID", Token::RuleId),
    ("RULELEVEL", Token::Level),
    ("SRCIP", Token::SrcIp),
    ("DSTUSER", Token::DstUser),
    ("FULLLOG", Token::FullLog),
    ("RULECOMMENT", Token::Description),
    ("RULEGROUP", Token::Groups),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Token(Token),
}

/// A form that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// No such token.
    #[error("`custom_alert_output` has an unknown token `${0}`")]
    Unknown(String),
    /// The offset is filled in last, and in one place.
    #[error("`custom_alert_output` names `$FTELL` more than once")]
    Offsets,
}

/// A form, ready to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainForm {
    pieces: Vec<Piece>,
}

impl PlainForm {
    /// Reads a form.
    ///
    /// # Errors
    /// A word in capitals behind a `$` that is no token, or a second `$FTELL`.
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let mut pieces = Vec::new();
        let mut parts = text.split('$');
        let literal = |text: &str| Piece::Text(text.replace(['\r', '\n'], " ").into());
        pieces.extend(parts.next().filter(|first| !first.is_empty()).map(literal));
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(part.len());
            let (word, rest) = part.split_at(end);
            // The longest token that the word begins with, so that `$RULEIDx` and `$FTELLS` mean what they show.
            let token =
                TOKENS.iter().filter(|(name, _)| word.starts_with(name)).max_by_key(|(name, _)| name.len());
            match token {
                Some((name, token)) => {
                    pieces.push(Piece::Token(*token));
                    let behind = format!("{}{rest}", &word[name.len()..]);
                    pieces.extend((!behind.is_empty()).then(|| literal(&behind)));
                }
                None if word.is_empty() => pieces.push(literal(&format!("${rest}"))),
                None => return Err(FormError::Unknown(word.chars().take(40).collect())),
            }
        }
        let offsets = pieces.iter().filter(|piece| **piece == Piece::Token(Token::Offset)).count();
        if offsets > 1 { Err(FormError::Offsets) } else { Ok(Self { pieces }) }
    }

    /// Whether the alert's offset stands in it: the gap of what is rendered.
    pub fn has_offset(&self) -> bool {
        self.pieces.contains(&Piece::Token(Token::Offset))
    }

    /// Writes the line; where the gap for the offset is, without one at its end.
    pub(super) fn render(&self, picture: &Picture<'_>, out: &mut Page) -> usize {
        let Some(chosen) = picture.rule else { return 0 };
        let event = picture.event;
        let mut gap = None;
        for piece in &self.pieces {
            let info = &chosen.rule.info;
            match piece {
                Piece::Text(text) => out.append(text.as_bytes()),
                Piece::Token(Token::Timestamp) => {
                    out.append(event.event.received.secs().to_string().as_bytes());
                }
                Piece::Token(Token::Offset) => gap = Some(out.len()),
                Piece::Token(Token::Mail) => out.append(if info.mail { b"mail " } else { b"" }),
                Piece::Token(Token::Host) => value(event.hostname(), out),
                Piece::Token(Token::Location) => value(Some(&event.location), out),
                Piece::Token(Token::RuleId) => out.decimal(info.id.0),
                Piece::Token(Token::Level) => out.decimal(u32::from(info.level)),
                Piece::Token(Token::SrcIp) => value(event.field(StaticField::SrcIp), out),
                Piece::Token(Token::DstUser) => value(event.field(StaticField::DstUser), out),
                Piece::Token(Token::FullLog) => one_line(&event.full_log, out),
                Piece::Token(Token::Description) => one_line(chosen.description, out),
                Piece::Token(Token::Groups) => out.append(info.groups.as_bytes()),
            }
        }
        out.push(b'\n');
        gap.unwrap_or(out.len())
    }
}

fn value(value: Option<&[u8]>, out: &mut Page) {
    one_line(value.filter(|value| !value.is_empty()).unwrap_or(ABSENT), out);
}

/// Appends text with its line ends written as `\n` and `\r`.
fn one_line(text: &[u8], out: &mut Page) {
    let mut rest = text;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        out.append(&rest[..at]);
        out.append(if rest[at] == b'\n' { b"\\n" } else { b"\\r" });
        rest = &rest[at + 1..];
    }
    out.append(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_token_and_a_second_offset_are_refused() {
        assert_eq!(PlainForm::parse("$RULE $X"), Err(FormError::Unknown("RULE".into())));
        assert_eq!(PlainForm::parse("$FTELL $FTELL"), Err(FormError::Offsets));
        assert!(PlainForm::parse("costs 5$ or $5, $RULEIDx").is_ok());
    }

    #[test]
    fn line_ends_in_values_are_written_out() {
        let mut out = Page::default();
        one_line(b"a\nb\r\nc", &mut out);
        assert_eq!(out.written(), b"a\\nb\\r\\nc");
    }
}
