//! `ossec.conf` and its relatives as typed settings, with a diagnostic for every problem.
//!
//! Reading is separate from finding: [`parse`] depends on the text and the role alone, [`load`],
//! [`read_ruleset`] and [`internal_options`] add the files. Blanks around values are trimmed, bad values
//! are collected and reported together. Invariant: a setting that limits what may be blocked is never
//! silently dropped or widened; when in doubt the configuration is refused.

mod auth;
mod check;
mod client;
mod default;
pub mod executable;
mod global;
mod load;
mod localfile;
mod network;
mod options;
mod parse;
mod reader;
mod response;
mod ruleset;
mod scope;
mod settings;
mod suggest;

pub use check::{check_executables, check_extensions};
pub use client::{Client, ClientBuffer, Enrollment, ServerAddress};
pub use default::{DEFAULT_OSSEC_CONF, demo_conf};
pub use load::{LoadError, load};
pub use localfile::{JournalFilter, LocalFile, Multiline, MultilineEdge};
pub use options::{InternalOptions, internal_options};
pub use parse::{Identity, Loaded, parse, parse_agent, parse_all};
pub use ruleset::{RulesetDir, RulesetPaths, RulesetTexts, Supplied, read_ruleset};
pub use scope::Scope;
pub use settings::{
    AlertLevels, AllowEntry, Auth, Command, Contested, Global, Label, Locations, Own, Remote,
    ResponderSettings, Response, Role, RuleTest, Settings,
};

#[cfg(test)]
mod tests;
