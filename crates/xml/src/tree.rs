//! Elements and attributes as later readers see them.
//!
//! Comments and variable definitions are already gone. Text of an element that has children is empty:
//! the contract gives it no meaning.

use std::borrow::Cow;

use crate::Span;

/// One element with everything inside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// The name as written; compare with [`Element::is`].
    pub name: String,
    /// The name in the opening tag.
    pub name_span: Span,
    /// From the `<` of the opening tag to the `>` of the closing one.
    pub span: Span,
    /// Attributes in the order of the file.
    pub attributes: Vec<Attribute>,
    /// Text without comments, variables replaced, blanks kept; empty when there are children.
    pub content: Vec<u8>,
    /// What lies between the two tags.
    pub content_span: Span,
    /// Child elements in the order of the file.
    pub children: Vec<Self>,
}

/// One `name="value"` of an opening tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attribute {
    /// The name as written; its case counts.
    pub name: String,
    /// The value with variables replaced.
    pub value: Vec<u8>,
    /// The whole attribute.
    pub span: Span,
    /// The value without its quotes.
    pub value_span: Span,
}

impl Element {
    /// Compares the name without regard to ASCII case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The content as text; bytes that are no UTF-8 become replacement characters.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.content)
    }

    /// The attribute with exactly this name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.name == name)
    }
}

impl Attribute {
    /// The value as text; bytes that are no UTF-8 become replacement characters.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }
}
