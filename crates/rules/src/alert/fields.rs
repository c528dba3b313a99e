//! The `data` member, written straight from the fields while their order needs no tree.
//!
//! Names come in an order in which every object is complete before the next one begins, as JSON events and decoders give
//! them, nearly always. So the objects that are open are kept as a stack, and the names of all members so far as hashes:
//! whoever might be a second of its name, ASCII case ignored, makes the whole be written again through the [`Tree`].
//! Members of a JSON log that stand there as they are to be written are copied, neighbours together.
//! Invariant: what is written is what the tree would have written.

use std::borrow::Cow;

use super::data::Tree;
use super::json::compact_array;
use super::page::Page;
use crate::Decoded;
use crate::fields::{Copied, Digest, Field};

/// More open objects than this go through the tree.
const DEEPEST: usize = 16;
/// Places for names; half of them are used at most.
const PLACES: usize = 256;

/// What is kept between events for its memory.
#[derive(Debug)]
pub(super) struct Names {
    /// Hashes of members with the number of their event, of other events where none is.
    seen: [u32; PLACES],
    /// The number of the event, in the lowest bits of hashes.
    event: u32,
    count: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self { seen: [0; PLACES], event: 0, count: 0 }
    }
}

impl Names {
    /// Has room for so many numbers.
    const EVENTS: u32 = 0x100;

    fn clear(&mut self) {
        self.event = (self.event + 1) % Self::EVENTS;
        if self.event == 0 {
            *self = Self { event: 1, ..Self::default() };
        }
        self.count = 0;
    }

    /// Notes the name of a member, by its [`Digest::mark`]; the object's hash, should it be one. None if the name may be there
    /// already, or too many are.
    #[inline]
    fn add(&mut self, object: u64, mark: u32) -> Option<u64> {
        let hash = (object ^ u64::from(mark)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mark = ((hash >> 32) as u32 & !(Self::EVENTS - 1)) | self.event;
        let mut at = (hash >> 24) as usize % PLACES;
        while self.seen[at] % Self::EVENTS == self.event {
            if self.seen[at] == mark {
                return None;
            }
            at = (at + 1) % PLACES;
        }
        self.seen[at] = mark;
        self.count += 1;
        (self.count <= PLACES / 2).then_some(hash)
    }
}

/// An object that is open: where its members' names begin in theirs, and what their hashes begin with.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    start: usize,
    hash: u64,
}

/// Appends the member, if there is any field.
pub(super) fn write(event: &Decoded<'_>, names: &mut Names, page: &mut Page) {
    let start = page.len();
    if !stream(event, names, page) {
        page.back_to(start);
        through_tree(event, page);
    }
}

/// The plain form.
#[cold]
#[inline(never)]
pub(super) fn through_tree(event: &Decoded<'_>, page: &mut Page) {
    let dynamic: Vec<_> = event.dynamic().collect();
    let tree = Tree::of(event, &dynamic);
    if !tree.is_empty() {
        let mut text = Vec::new();
        tree.write(&mut text);
        page.append(b",\"data\":");
        page.append(&text);
    }
}

/// False where it takes a tree; what was written until then is to be forgotten.
fn stream(event: &Decoded<'_>, names: &mut Names, page: &mut Page) -> bool {
    names.clear();
    let start = page.len();
    page.append(b",\"data\":");
    let empty = page.len();
    let dynamic = event.has_dynamic();
    // The first member of an object begins with its brace.
    let mut mark = b'{';
    for (field, value) in event.statics() {
        let name = field.name().as_bytes();
        if dynamic && names.add(0, Digest::of(name).mark()).is_none() {
            return false;
        }
        page.member(mark, name, value);
        mark = b',';
    }
    let depth = if dynamic {
        let mut members = Members { names, page, mark, open: [Open::default(); DEEPEST], depth: 0 };
        match members.write(event) {
            Some(depth) => depth,
            None => return false,
        }
    } else {
        0
    };
    if page.len() == empty {
        page.back_to(start);
    } else {
        (0..=depth).for_each(|_| page.push(b'}'));
    }
    true
}

/// Writes dynamic fields.
struct Members<'m> {
    names: &'m mut Names,
    page: &'m mut Page,
    /// What stands before the next member.
    mark: u8,
    open: [Open; DEEPEST],
    depth: usize,
}

impl Members<'_> {
    /// The number of objects that are open then; none where it takes a tree.
    fn write(&mut self, event: &Decoded<'_>) -> Option<usize> {
        let text = &*event.event.text;
        // The object whose members are written, and what their names begin with.
        let mut object = 0;
        let mut around: Cow<'_, [u8]> = Cow::Borrowed(b"");
        // A part of the event's text that is to be copied.
        let mut part = (0, 0);
        for field in event.fields().filter(|field| !field.is_empty()) {
            let Some((own, mark)) = field.place() else {
                self.copy(text, &mut part);
                self.write_by_name(text, field, &mut around)?;
                object = 0;
                continue;
            };
            if own != object {
                self.copy(text, &mut part);
                self.go_into(Cow::Borrowed(field.object()), &mut around)?;
                object = own;
            }
            self.names.add(self.open[self.depth].hash, mark)?;
            if let Some(Copied::Whole(start, end)) = field.copied() {
                // Only the comma stands between neighbours.
                if start == part.1 + 1 && part.1 > 0 {
                    part.1 = end;
                } else {
                    self.copy(text, &mut part);
                    self.page.push(self.mark);
                    part = (start, end);
                }
            } else {
                self.copy(text, &mut part);
                self.member(text, field, field.key());
            }
            self.mark = b',';
        }
        self.copy(text, &mut part);
        Some(self.depth)
    }

    /// Writes a field of which only the whole name tells where it belongs.
    #[inline(never)]
    fn write_by_name<'f>(&mut self, text: &[u8], field: Field<'f>, around: &mut Cow<'f, [u8]>) -> Option<()> {
        self.go_into(field.name(), around)?;
        let Open { start, hash } = self.open[self.depth];
        let name = &around[start..];
        self.names.add(hash, Digest::of(name).mark())?;
        self.member(text, field, name);
        self.mark = b',';
        Some(())
    }

    /// Closes the objects that are open, with `around` in front of their members' names, and opens those around a field, whose
    /// name begins with `name`.
    #[inline]
    fn go_into<'f>(&mut self, name: Cow<'f, [u8]>, around: &mut Cow<'f, [u8]>) -> Option<()> {
        self.close(&name, around);
        self.enter(&name)?;
        *around = name;
        Some(())
    }

    /// Writes a member of the object that is open.
    fn member(&mut self, text: &[u8], field: Field<'_>, name: &[u8]) {
        if let Some(Copied::Value(start, end)) = field.copied() {
            self.page.key(self.mark, name);
            self.page.append(text.get(start..end).unwrap_or_default());
            return;
        }
        let value = field.value();
        match compact(value) {
            Some(array) => {
                self.page.key(self.mark, name);
                self.page.append(&array);
            }
            None => self.page.member(self.mark, name, value),
        }
    }

    /// Copies what is to be copied.
    fn copy(&mut self, text: &[u8], part: &mut (usize, usize)) {
        if part.1 > 0 {
            self.page.append(text.get(part.0..part.1).unwrap_or_default());
            *part = (0, 0);
        }
    }

    /// Closes the objects around the last field that are not around that one.
    fn close(&mut self, name: &[u8], last: &[u8]) {
        while self.depth > 0 && !name.starts_with(&last[..self.open[self.depth].start]) {
            self.page.push(b'}');
            self.depth -= 1;
        }
    }

    /// Opens the objects around a field.
    fn enter(&mut self, name: &[u8]) -> Option<()> {
        let mut rest = &name[self.open[self.depth].start..];
        while let Some(dot) = first_dot(rest) {
            let object = &rest[..dot];
            let hash = self.names.add(self.open[self.depth].hash, Digest::of(object).mark())?;
            if self.depth + 1 == DEEPEST {
                return None;
            }
            self.page.key(self.mark, object);
            self.mark = b'{';
            rest = &rest[dot + 1..];
            self.depth += 1;
            self.open[self.depth] = Open { start: name.len() - rest.len(), hash };
        }
        Some(())
    }
}

/// Where the first dot stands; names are short.
#[inline]
fn first_dot(name: &[u8]) -> Option<usize> {
    let length = name.len();
    if length < 8 {
        // Two overlapping halves, or one by one.
        let (Some(first), Some(last)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) else {
            return name.iter().position(|byte| *byte == b'.');
        };
        let word = u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
        return dot(word).map(|at| if at < 4 { at } else { at + length - 8 });
    }
    let mut at = 0;
    while let Some(bytes) = name.get(at..at + 8) {
        if let Some(dot) = dot(bytes.try_into().map_or(0, u64::from_le_bytes)) {
            return Some(at + dot);
        }
        if at + 8 == length {
            break;
        }
        at = (at + 8).min(length - 8);
    }
    None
}

/// The place of the first dot among eight bytes.
#[inline]
fn dot(word: u64) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let other = word ^ (ONES * b'.' as u64);
    let dots = other.wrapping_sub(ONES) & !other & (ONES << 7);
    (dots != 0).then_some((dots.trailing_zeros() / 8) as usize)
}

#[inline]
fn compact(value: &[u8]) -> Option<Vec<u8>> {
    if value.first() == Some(&b'[') { compact_array(value) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tld_model::{Event, Timestamp};

    use super::*;
    use crate::StaticField;

    /// Both forms of the same fields, and whether the tree was needed.
    fn both(statics: &[(StaticField, &str)], fields: &[(String, String)]) -> (String, String, bool) {
        let event = Event::local("x", "log", Timestamp::EPOCH);
        let mut event = Decoded::new(&event);
        for (field, value) in statics {
            event.set(*field, value.as_bytes());
        }
        for (name, value) in fields {
            event.push_dynamic(name, value.as_bytes(), 1024);
        }
        let text = |page: &Page| String::from_utf8(page.written().to_vec()).unwrap();
        let (mut written, mut tree) = (Page::default(), Page::default());
        let mut names = Names::default();
        write(&event, &mut names, &mut written);
        through_tree(&event, &mut tree);
        let streamed = stream(&event, &mut names, &mut Page::default());
        (text(&written), text(&tree), streamed)
    }

    fn pairs(names: &[&str]) -> Vec<(String, String)> {
        names.iter().enumerate().map(|(n, name)| (name.to_string(), n.to_string())).collect()
    }

    #[test]
    fn fields_in_the_order_of_their_objects_need_no_tree() {
        let names =
            ["win.system.id", "win.system.time", "win.data.user", "a", "b.c", "win2.x", "win3", "aB.c"];
        let (written, tree, streamed) = both(&[(StaticField::SrcIp, "192.0.2.1")], &pairs(&names));
        assert_eq!(written, tree);
        assert!(streamed, "{written}");
    }

    #[test]
    fn a_second_member_of_a_name_goes_through_the_tree() {
        for names in [
            ["a", "A", "x"],
            ["a.b", "x", "a.c"],
            ["a", "a.b", "x"],
            ["a.b", "a", "x"],
            ["a.b", "A.c", "x"],
            ["a.b.c", "a.B.d", "x"],
            ["srcip", "x", "y"],
            ["SrcIP.x", "x", "y"],
        ] {
            let (written, tree, streamed) = both(&[(StaticField::SrcIp, "192.0.2.1")], &pairs(&names));
            assert_eq!(written, tree, "{names:?}");
            assert!(!streamed, "{names:?}");
        }
    }

    #[test]
    fn hundreds_of_fields_and_deep_ones_are_written_as_the_tree_writes_them() {
        let many: Vec<_> = (0..600).map(|n| (format!("a{}.b{n}", n / 40), "v".to_owned())).collect();
        let deep: Vec<_> = (0..40).map(|n| ("x.".repeat(n * 5), format!("[1, {n}]"))).collect();
        for fields in [many, deep] {
            let (written, tree, _) = both(&[], &fields);
            assert_eq!(written, tree);
        }
    }

    proptest! {
        #[test]
        fn any_fields_are_written_as_the_tree_writes_them(
            statics in prop::collection::btree_map(0_usize..14, "[\\PC\"]{0,9}", 0..4),
            fields in prop::collection::vec(("[abAB.]{0,6}|[a-d]{1,20}|data(\\.[ab]){0,3}|srcip|[\\PC\"]{0,9}", "|\\[1, ?2\\]|[\\PC\"\\[]{0,9}"), 0..12),
        ) {
            let statics: Vec<_> =
                statics.iter().map(|(field, value)| (StaticField::ALL[*field], value.as_str())).collect();
            let (written, tree, _) = both(&statics, &fields);
            prop_assert_eq!(written, tree);
        }

        #[test]
        fn the_first_dot_is_found(name in "[a.]{0,40}|[\\PC.]{0,20}") {
            prop_assert_eq!(first_dot(name.as_bytes()), name.find('.'));
        }

        #[test]
        fn names_that_differ_in_case_alone_have_one_mark(name in "[a-zA-Z0-9_.\\-]{0,30}") {
            let upper = name.to_ascii_uppercase();
            prop_assert_eq!(Digest::of(name.as_bytes()).mark(), Digest::of(upper.as_bytes()).mark());
        }
    }
}
