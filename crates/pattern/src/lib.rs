//! The expression engines of the contract: OSRegex, OSMatch, PCRE2, group names and address sets.
//!
//! Rules and decoders choose an engine by name; everything is compiled once, when the rules are
//! loaded, and afterwards only reads. The invariant of this room: a subject ends at its first NUL,
//! is otherwise any bytes at all, and no subject makes a matcher panic or run without bound.

mod beginning;
pub mod block;
pub mod budget;
mod captures;
mod error;
mod expression;
mod group;
mod literal;
mod network;
mod osmatch;
mod osregex;
mod pcre;
mod piece;
mod text;

pub use beginning::Beginning;
pub use captures::Captures;
pub use error::CompileError;
pub use expression::{Expression, Kind};
pub use group::GroupPattern;
pub use literal::Needle;
pub use network::{AddressError, IpList, Network, canonical, parse_address};
pub use osmatch::OsMatch;
pub use osregex::{Known, OsRegex};
pub use pcre::Pcre;
pub use text::Text;

/// The longest pattern any engine takes, in bytes.
pub const PATTERN_LIMIT: usize = 20_480;

/// The part of `bytes` before the first NUL: all that an expression may see.
fn text(bytes: &[u8]) -> &[u8] {
    Text::new(bytes).bytes()
}
