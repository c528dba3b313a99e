//! Decoders written in code: `plugin_decoder` names one of these (analysis-decoders 5 and 6).
//!
//! Each sets what it finds and keeps what it set before a step that fails. Invariant: whatever stands in the
//! log, a plugin reads inside it only.

pub(super) mod json;
pub(super) mod ossec_alert;
pub(super) mod pf;
pub(super) mod sonicwall;
pub(super) mod symantec;

use crate::Value;
use crate::decoder::select::slice;

/// Which plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    Json,
    Pf,
    SymantecWs,
    SonicWall,
    OssecAlert,
}

impl Plugin {
    /// Names as written in files, all of them.
    pub(super) const NAMES: [(&str, Self); 5] = [
        ("JSON_Decoder", Self::Json),
        ("PF_Decoder", Self::Pf),
        ("SymantecWS_Decoder", Self::SymantecWs),
        ("SonicWall_Decoder", Self::SonicWall),
        ("OSSECAlert_Decoder", Self::OssecAlert),
    ];

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find_map(|(known, plugin)| (known == name).then_some(plugin))
    }
}

/// A place in a log, moving forward.
struct Cursor<'a, 'e> {
    log: &'a Value<'e>,
    at: usize,
}

impl<'a, 'e> Cursor<'a, 'e> {
    fn new(log: &'a Value<'e>) -> Self {
        Self { log, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.log.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// Moves behind the next occurrence of `text`.
    fn pass(&mut self, text: &[u8]) -> Option<()> {
        self.at += memchr::memmem::find(self.rest(), text)? + text.len();
        Some(())
    }

    /// Moves over `text` if it stands here.
    fn take(&mut self, text: &[u8]) -> Option<()> {
        self.rest().starts_with(text).then(|| self.at += text.len())
    }

    /// The text up to `end`; moves behind `end`.
    fn until(&mut self, end: u8) -> Option<Value<'e>> {
        let length = memchr::memchr(end, self.rest())?;
        let found = slice(self.log, self.at, self.at + length);
        self.at += length + 1;
        Some(found)
    }
}
