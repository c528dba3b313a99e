//! The XML dialect of decoder, rule and configuration files, and diagnostics that point into them.
//!
//! The dialect is not standard XML: entities are not decoded, several roots are normal, `\<` keeps a
//! tag from opening, and `<var>` defines text for the rest of the file. Every name and value keeps its
//! span, so that later readers can point at the byte that is wrong.
//! Invariant: no input, however broken, makes this crate panic or use memory out of proportion.

mod diagnostic;
mod scan;
mod source;
mod tree;
mod variables;

pub use diagnostic::{Diagnostic, Severity};
pub use scan::parse;
pub use source::{Source, Span};
pub use tree::{Attribute, Element};

/// Most bytes that one name, attribute value or element content may have.
pub const MAX_TEXT: usize = 20_480;
/// Deepest nesting of elements.
pub const MAX_DEPTH: usize = 1024;
/// Most attributes of one element.
pub const MAX_ATTRIBUTES: usize = 48;
