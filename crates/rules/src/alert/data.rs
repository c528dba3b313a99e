//! The `data` member: fields as nested objects (analysis-output 1). Invariant: members are looked up without ASCII
//! case, and the first one of a name stays.

use super::json::{Object, compact_array, string};
use crate::{Decoded, StaticField, Value};

/// Dots below this depth stay in the key: nesting is the sender's choice, the stack is ours.
const DEEPEST: usize = 128;

/// An object whose members are texts, arrays or objects.
#[derive(Debug, Default)]
pub(crate) struct Tree<'a> {
    members: Vec<(&'a [u8], Node<'a>)>,
}

#[derive(Debug)]
enum Node<'a> {
    Text(&'a [u8]),
    Array(Vec<u8>),
    Object(Tree<'a>),
}

impl<'a> Tree<'a> {
    /// The event's fields, the dynamic ones as [`Decoded::dynamic`] tells them.
    pub(crate) fn of(event: &'a Decoded<'_>, dynamic: &'a [(Value<'_>, &[u8])]) -> Self {
        let mut tree = Self::default();
        for field in StaticField::ALL {
            if let Some(value) = event.field(field) {
                tree.members.push((field.name().as_bytes(), Node::Text(value)));
            }
        }
        for (key, value) in dynamic {
            if !value.is_empty() {
                tree.insert(key, value);
            }
        }
        tree
    }

    /// Adds a value below a dotted key unless something stands in the way.
    pub(crate) fn insert(&mut self, key: &'a [u8], value: &'a [u8]) {
        let mut tree = self;
        let mut key = key;
        for _ in 0..DEEPEST {
            let Some(dot) = memchr::memchr(b'.', key) else { break };
            let (name, rest) = (&key[..dot], &key[dot + 1..]);
            key = rest;
            let at = tree.position(name).unwrap_or_else(|| {
                tree.members.push((name, Node::Object(Tree::default())));
                tree.members.len() - 1
            });
            match &mut tree.members[at].1 {
                Node::Object(inner) => tree = inner,
                Node::Text(_) | Node::Array(_) => return,
            }
        }
        if tree.position(key).is_none() {
            let node = compact_array(value).map_or(Node::Text(value), Node::Array);
            tree.members.push((key, node));
        }
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.members.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        for (key, node) in &self.members {
            let out = object.key(key);
            match node {
                Node::Text(text) => string(text, out),
                Node::Array(array) => out.extend_from_slice(array),
                Node::Object(tree) => tree.write(out),
            }
        }
        object.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pairs: &[(&'static str, &'static str)]) -> String {
        let mut tree = Tree::default();
        for (key, value) in pairs {
            tree.insert(key.as_bytes(), value.as_bytes());
        }
        let mut out = Vec::new();
        tree.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dots_nest_and_the_first_name_stays() {
        assert_eq!(
            written(&[("a.b", "1"), ("A.c", "2"), ("a.B", "3"), ("x", "4"), ("X.y", "5"), ("l", "[1, 2]")]),
            r#"{"a":{"b":"1","c":"2"},"x":"4","l":[1,2]}"#
        );
    }

    #[test]
    fn endless_dots_do_not_exhaust_the_stack() {
        let key: &'static str = ".".repeat(100_000).leak();
        assert!(written(&[(key, "v")]).len() > 100_000);
    }
}
