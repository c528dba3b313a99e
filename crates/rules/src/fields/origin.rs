//! Where a member of a JSON log stands in it, so that its alert may copy it from there.
//! Invariant: what may be copied is what the alert would write.

use std::borrow::Cow;

use super::{Digest, Dynamic, Span};
use crate::Decoded;

/// What is known of a field that is a member of an object of the event's JSON document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// Where the value, or name and value, stand in the event's text just as alerts write them.
    shown: Span,
    /// [`Digest::mark`] of its name within the object; 0 where only the whole name tells.
    mark: u32,
}

impl Origin {
    /// Of a field that is no member of a document.
    pub(crate) const NONE: Self = Self { shown: Span::ABSENT, mark: 0 };

    /// Of a member by that name.
    #[inline]
    pub(crate) fn new(digest: Digest) -> Self {
        Self { mark: if digest.odd { 0 } else { digest.mark() }, ..Self::NONE }
    }

    /// The same with the part of the event's text that alerts may copy. The name stands in that text, too, and in the part
    /// if that begins with it.
    #[inline]
    pub(crate) fn shown(self, part: Span) -> Self {
        Self { shown: part, ..self }
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

    /// The number of the object that it is a member of, and the mark of its name there; none if only its whole name tells
    /// that.
    #[inline]
    pub(crate) fn place(self) -> Option<(u16, u32)> {
        let (object, mark) = (self.field.object, self.field.origin.mark);
        (object != 0 && mark != 0).then_some((object, mark))
    }

    /// What alerts may copy.
    #[inline]
    pub(crate) fn copied(self) -> Option<Copied> {
        let Span { start, length } = self.field.origin.shown;
        let (from, to) = (start as usize, start as usize + length as usize);
        (start != Span::ABSENT.start).then_some(if start < self.field.key.start {
            Copied::Whole(from, to)
        } else {
            Copied::Value(from, to)
        })
    }

    /// The names of the objects around it, each with its dot; empty for a field that is no member of any.
    #[inline]
    pub(crate) fn object(self) -> &'f [u8] {
        self.event.object(self.field).and_then(|object| self.event.slice(object)).unwrap_or_default()
    }

    /// The rest of its name.
    #[inline]
    pub(crate) fn key(self) -> &'f [u8] {
        self.event.slice(self.field.key).unwrap_or_default()
    }

    /// Its whole name.
    #[inline]
    pub(crate) fn name(self) -> Cow<'f, [u8]> {
        if self.field.object == 0 { Cow::Borrowed(self.key()) } else { self.joined() }
    }

    #[inline(never)]
    fn joined(self) -> Cow<'f, [u8]> {
        match self.object() {
            [] => Cow::Borrowed(self.key()),
            object => Cow::Owned([object, self.key()].concat()),
        }
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
