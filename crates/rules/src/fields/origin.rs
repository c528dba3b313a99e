//! Where a member of a JSON log stands in it, so that its alert may copy it from there.
//! Invariant: what may be copied is what the alert would write.

use super::{Digest, Dynamic, Span};
use crate::Decoded;

/// What is known of a field that is a member of an object of the event's JSON document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The object's number; 0 for a field that is none, or whose name holds a dot.
    pub(crate) object: u16,
    /// [`Digest::mark`] of its name within the object.
    pub(crate) mark: u32,
    /// Where the value, or name and value, stand in the event's text just as alerts write them.
    shown: Span,
    whole: bool,
}

impl Origin {
    /// Of a field that is no member of a document.
    pub(crate) const NONE: Self = Self { object: 0, mark: 0, shown: Span::ABSENT, whole: false };

    /// Of a member by that name.
    #[inline]
    pub(crate) fn new(object: u16, digest: Digest) -> Self {
        if digest.odd { Self::NONE } else { Self { object, mark: digest.mark(), ..Self::NONE } }
    }

    /// The same with the part of the event's text that alerts may copy, and whether the name is in it.
    #[inline]
    pub(crate) fn shown(self, start: u32, end: u32, whole: bool) -> Self {
        if self.object == 0 {
            self
        } else {
            Self { shown: Span { start, length: end - start }, whole, ..self }
        }
    }

    /// That part.
    #[inline]
    pub(crate) fn copied(self) -> Option<Copied> {
        let Span { start, length } = self.shown;
        let (from, to) = (start as usize, start as usize + length as usize);
        (self.shown != Span::ABSENT).then_some(if self.whole {
            Copied::Whole(from, to)
        } else {
            Copied::Value(from, to)
        })
    }
}

/// A part of an event's text that alerts may copy: where it begins and ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Copied {
    /// Name and value.
    Whole(usize, usize),
    Value(usize, usize),
}

/// A dynamic field, of which only what is asked for is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'f> {
    event: &'f Decoded<'f>,
    field: &'f Dynamic,
}

impl<'f> Field<'f> {
    #[inline]
    pub(super) fn new(event: &'f Decoded<'f>, field: &'f Dynamic) -> Self {
        Self { event, field }
    }

    #[inline]
    pub(crate) fn origin(self) -> Origin {
        self.field.origin
    }

    #[inline]
    pub(crate) fn name(self) -> &'f [u8] {
        self.event.slice(self.field.name).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn value(self) -> &'f [u8] {
        self.event.slice(self.field.value).unwrap_or_default()
    }

    /// Whether its value is empty.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.field.value.length == 0
    }
}
