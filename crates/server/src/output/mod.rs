//! Outputs: each takes finished alerts from a bounded queue on its own thread, so that a slow disk never delays a response.

pub mod file;
pub(crate) mod firewall;
pub mod past;
pub(crate) mod state;

use std::path::PathBuf;

use tld_model::{Alert, Timestamp};
use tld_rules::Effect;

use crate::sequencer::Place;

/// What the outputs write.
#[derive(Debug)]
pub enum Record {
    /// An alert with its place.
    Alert(Box<(Alert, Place)>),
    /// An event for the archives, as its JSON line and its plain line (either may be empty).
    Archive {
        /// Moment of the event.
        at: Timestamp,
        /// Line of archives.json without newline.
        json: Vec<u8>,
        /// Line of archives.log without newline.
        plain: Vec<u8>,
    },
    /// A line of firewall.log without newline.
    Firewall {
        /// Moment of the event.
        at: Timestamp,
        /// The line.
        line: Vec<u8>,
    },
    /// State that the analysis wants kept.
    State(Effect),
    /// A file of the product's own.
    Note(Note),
}

/// Text for a file below the home. Invariant: no part of the path comes from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Whole lines to be added.
    Append {
        /// Relative to the home.
        path: PathBuf,
        /// Lines with their newlines.
        text: Vec<u8>,
    },
    /// The file's new content.
    Replace {
        /// Relative to the home.
        path: PathBuf,
        /// All of it.
        text: Vec<u8>,
    },
}

impl Record {
    /// Bytes it takes up while it waits.
    pub(crate) fn weight(&self) -> usize {
        let inside = match self {
            Self::Alert(record) => record.0.weight() + size_of::<Place>() + record.1.id.capacity(),
            Self::Archive { json, plain, .. } => json.capacity() + plain.capacity(),
            Self::Firewall { line, .. } => line.capacity(),
            Self::Note(Note::Append { text, .. } | Note::Replace { text, .. }) => text.capacity(),
            Self::State(Effect::Fts(line) | Effect::Ignore(line)) => line.capacity(),
            Self::State(Effect::Diff { host, text, .. }) => host.capacity() + text.capacity(),
        };
        size_of::<Self>() + inside
    }
}
