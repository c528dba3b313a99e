//! Literals that a match cannot do without, read off the syntax tree.
//!
//! Invariant: a set is only ever too permissive; where the tree is silent, so is the answer.

use regex_syntax::hir::{Class, Hir, HirKind};

/// More alternatives than this are not worth a lookup each.
const MOST: usize = 64;

/// Lower-case literals of which every match holds at least one; empty when unknown.
pub(super) fn of(source: &str, utf: bool) -> Vec<Vec<u8>> {
    let parsed =
        regex_syntax::ParserBuilder::new().utf8(false).unicode(utf).nest_limit(2_000).build().parse(source);
    parsed.ok().and_then(|hir| of_tree(&hir)).unwrap_or_default()
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
