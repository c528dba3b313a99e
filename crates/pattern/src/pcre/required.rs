//! What a match cannot do without, read off the syntax tree: literals, and bytes at the beginning of the subject.
//!
//! Invariant: a set is only ever too permissive; where the tree is silent, so is the answer.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use crate::beginning::{Beginning, ByteSet};

/// More alternatives than this are not worth a lookup each.
const MOST: usize = 64;

/// The tree of a pattern.
pub(super) fn tree(source: &str, utf: bool) -> Option<Hir> {
    regex_syntax::ParserBuilder::new().utf8(false).unicode(utf).nest_limit(2_000).build().parse(source).ok()
}

/// Lower-case literals of which every match holds at least one; empty when unknown.
pub(super) fn of(tree: &Hir) -> Vec<Vec<u8>> {
    of_tree(tree).unwrap_or_default()
}

/// Bytes all of which every match holds.
pub(super) fn bytes(tree: &Hir) -> ByteSet {
    let none = || ByteSet::of(|_| false);
    match tree.kind() {
        HirKind::Literal(literal) => ByteSet::of(|byte| literal.0.contains(&byte)),
        HirKind::Capture(group) => bytes(&group.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => bytes(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().map(bytes).fold(none(), |all, part| all.or(&part)),
        HirKind::Alternation(branches) => {
            branches.iter().map(bytes).reduce(|all, branch| all.and(&branch)).unwrap_or_else(none)
        }
        _ => none(),
    }
}

/// What a subject may begin with, for a pattern that is bound to its beginning.
pub(super) fn beginning(tree: &Hir) -> Beginning {
    match tree.kind() {
        HirKind::Capture(group) => beginning(&group.sub),
        HirKind::Alternation(branches) => Beginning::any(branches.iter().map(beginning)),
        HirKind::Concat(parts) => match parts.split_first() {
            Some((first, rest)) if *first.kind() == HirKind::Look(Look::Start) => {
                let mut places = Vec::new();
                rest.iter().all(|part| follow(part, &mut places));
                Beginning::new(places)
            }
            // Alternatives may have had their anchor taken out of them, and a group may hold it.
            Some((first, _)) => beginning(first),
            None => Beginning::default(),
        },
        _ => Beginning::default(),
    }
}

/// Adds the bytes of a part's places; true if it takes exactly these, so that the next part follows.
fn follow(part: &Hir, places: &mut Vec<ByteSet>) -> bool {
    match part.kind() {
        HirKind::Empty => true,
        HirKind::Literal(literal) => {
            places.extend(literal.0.iter().map(|own| ByteSet::of(|byte| byte == *own)));
            true
        }
        HirKind::Class(class) => {
            let bytes = match class {
                Class::Bytes(class) => class.clone(),
                Class::Unicode(class) => match class.to_byte_class() {
                    Some(class) => class,
                    None => return false,
                },
            };
            let holds = |byte: u8| bytes.iter().any(|range| (range.start()..=range.end()).contains(&byte));
            places.push(ByteSet::of(holds));
            true
        }
        HirKind::Capture(group) => follow(&group.sub, places),
        HirKind::Concat(parts) => parts.iter().all(|part| follow(part, places)),
        HirKind::Alternation(branches) => {
            let mut exact = true;
            let branches = branches.iter().map(|branch| {
                let mut own = Vec::new();
                exact &= follow(branch, &mut own);
                own
            });
            let mut branches: Vec<Vec<ByteSet>> = branches.collect();
            let least = branches.iter().map(Vec::len).min().unwrap_or(0);
            exact &= branches.iter().all(|own| own.len() == least);
            let first = branches.pop().unwrap_or_default();
            places.extend(
                (0..least).map(|place| branches.iter().fold(first[place], |all, own| all.or(&own[place]))),
            );
            exact
        }
        HirKind::Repetition(repetition) => {
            let wanted = (0..repetition.min.min(8)).all(|_| follow(&repetition.sub, places));
            wanted && repetition.max == Some(repetition.min) && repetition.min <= 8
        }
        _ => false,
    }
}

fn of_tree(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(_) => single(hir).map(|byte| vec![vec![byte]]),
        HirKind::Capture(group) => of_tree(&group.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => of_tree(&repetition.sub),
        HirKind::Concat(parts) => of_sequence(parts),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(of_tree(branch)?);
                if all.len() > MOST {
                    return None;
                }
            }
            Some(all)
        }
        _ => None,
    }
}

/// The best of all parts: the one whose shortest literal is longest.
fn of_sequence(parts: &[Hir]) -> Option<Vec<Vec<u8>>> {
    let mut candidates = Vec::new();
    let mut run = Vec::new();
    for part in parts {
        match part.kind() {
            HirKind::Literal(literal) => run.extend(literal.0.to_ascii_lowercase()),
            _ => match single(part) {
                Some(byte) => run.push(byte),
                None => {
                    candidates.push(vec![std::mem::take(&mut run)]);
                    candidates.extend(of_tree(part));
                }
            },
        }
    }
    candidates.push(vec![run]);
    let shortest = |set: &Vec<Vec<u8>>| set.iter().map(Vec::len).min().unwrap_or(0);
    candidates.into_iter().filter(|set| shortest(set) > 0).max_by_key(shortest)
}

/// The one byte, case folded, that a class stands for.
fn single(hir: &Hir) -> Option<u8> {
    let HirKind::Class(class) = hir.kind() else { return None };
    let bytes = match class {
        Class::Bytes(class) => class.clone(),
        Class::Unicode(class) => class.to_byte_class()?,
    };
    let mut members = bytes.iter().flat_map(|range| range.start()..=range.end());
    let first = members.next()?.to_ascii_lowercase();
    members.all(|byte| byte.to_ascii_lowercase() == first).then_some(first)
}
