//! From an alternative to a program that is ready to run, and what can be told of it before any run.
//!
//! Invariant: what is told (required literals, a beginning) is never more than what every success shows.

use memchr::memmem;

use super::matcher::{First, Place, Program};
use super::op::{Code, Op, Stop};
use super::program::{Alternative, Item, Members, Quantifier};
use crate::beginning::{Beginning, ByteSet};
use crate::literal;
use crate::piece::Piece;

/// The items of an alternative.
fn items(alternative: &Alternative) -> Box<[Op]> {
    let mut marks = 0;
    let count = alternative.items.len();
    let mut items: Box<[_]> = alternative
        .items
        .iter()
        .enumerate()
        .map(|(index, item)| match *item {
            Item::Literal(byte) => Op::Literal(byte),
            Item::Mark => {
                marks += 1;
                Op::Mark(marks - 1)
            }
            Item::Class { name, quantifier } => {
                let short = quantifier == Quantifier::None
                    && index + 2 == count
                    && !matches!(alternative.items[index + 1], Item::Class { .. });
                let last = short || index + 1 == count;
                Op::Class { set: Members::of_class(name), quantifier, last, stop: None, tail: false }
            }
        })
        .collect();
    set_stops(&mut items);
    items
}

/// Whether a program can match at all: a literal from 128 on never does, and no success gets around a literal.
fn can_match(items: &[Op]) -> bool {
    !items[..obliged(items)].iter().any(|op| matches!(op, Op::Literal(byte) if *byte >= 0x80))
}

/// What a subject that matches may begin with; none if no subject matches.
pub(super) fn beginning(alternative: &Alternative) -> Option<Beginning> {
    let items = items(alternative);
    let begins = || if alternative.begin_anchored { beginning_of(&items) } else { Beginning::default() };
    can_match(&items).then(begins)
}

impl Program {
    /// Ready to run, as the only alternative.
    pub(super) fn new(alternative: &Alternative) -> Self {
        let items = items(alternative);
        let can_match = can_match(&items);
        let (required, leads) = longest_literal(&items[..obliged(&items)]);
        let leading = leading_literal(&items);
        let mut sought: &[u8] = &[];
        let behind = leading_literal(unmarked(&items).get(1..).unwrap_or_default());
        let first = match items.iter().find(|op| !matches!(op, Op::Mark(0))) {
            _ if !can_match => First::Never,
            Some(Op::Literal(_)) if leading.len() > 1 && leading == required => First::Required,
            Some(Op::Literal(_)) if leading.len() > 1 => {
                sought = &leading;
                First::Run
            }
            Some(Op::Literal(byte)) => First::Literal(*byte),
            Some(Op::Class { set, quantifier: Quantifier::None, .. }) if behind.len() > 1 => {
                sought = &behind;
                First::Before(*set)
            }
            Some(Op::Class { set, quantifier: Quantifier::None, .. }) => First::Class(*set),
            _ => First::Unknown,
        };
        let plain = !items.is_empty()
            && !alternative.begin_anchored
            && !alternative.end_anchored
            && items.iter().all(|op| matches!(op, Op::Literal(_)));
        let code = Code::new(&items);
        let mut bytes = code.items;
        let pivot = |text: &[u8]| literal::rarest(&text[..text.len().min(1 << 8)]) as u8;
        Self {
            begin: beginning(alternative).unwrap_or_default().single(),
            items: bytes.len() as u16,
            marks: items.iter().filter(|op| matches!(op, Op::Mark(_))).count() as u16,
            pivots: [&required, sought].map(pivot),
            required: Place::of(&required, &mut bytes),
            sought: Place::of(sought, &mut bytes),
            told: bytes.len() as u16,
            leads: leads && !alternative.begin_anchored && matches!(first, First::Required | First::Run),
            first,
            begin_anchored: alternative.begin_anchored,
            end_anchored: alternative.end_anchored,
            plain,
            alone: true,
            grouped: false,
            bytes: Piece::new(&[&bytes, code.told.as_flattened()].concat()),
        }
    }
}

impl Place {
    /// Where a text stands in some bytes, where it is put if it stands nowhere.
    fn of(text: &[u8], bytes: &mut Vec<u8>) -> Self {
        let start = memmem::find(bytes, text).unwrap_or_else(|| {
            bytes.extend(text);
            bytes.len() - text.len()
        });
        Self { start: start as u16, length: text.len() as u16 }
    }
}

/// Tells every class what ends its run.
fn set_stops(items: &mut [Op]) {
    for index in 0..items.len() {
        let next = items.get(index + 1..).and_then(|behind| match behind {
            // A mark behind another mark is compared as the byte that it was written with.
            [Op::Mark(_), next, ..] => Some(next),
            [Op::Mark(_)] | [] => None,
            [next, ..] => Some(next),
        });
        let next = next.copied();
        if let Some(Op::Class { set, stop, quantifier, tail, .. }) = items.get_mut(index)
            && *quantifier != Quantifier::None
        {
            *stop = Some(Stop::new(*set, next.as_ref()));
            *tail = next.is_none();
        }
    }
}

/// What an anchored program of such items can begin with: for each place the bytes of all items that it may have come to there.
fn beginning_of(items: &[Op]) -> Beginning {
    let mut places: Vec<ByteSet> = Vec::new();
    let survives = run_survives(items);
    let mut from = vec![0];
    while places.len() < Beginning::PLACES
        && let Some(open) = open_items(items, &from, survives, !places.is_empty())
    {
        places.push(ByteSet::of(|byte| open.iter().any(|item| items[*item].takes(byte))));
        let stays = |item: &usize| {
            let run =
                matches!(items[*item], Op::Class { quantifier: Quantifier::Plus | Quantifier::Star, .. });
            [Some(item + 1), Some(*item).filter(|_| run)]
        };
        from = open.iter().flat_map(stays).flatten().collect();
        from.sort_unstable();
        from.dedup();
    }
    Beginning::new(places)
}

/// The items that may take a byte when the program stands in front of one of some items; none where it may also be at its
/// end.
fn open_items(items: &[Op], from: &[usize], survives: bool, later: bool) -> Option<Vec<usize>> {
    let mut open = Vec::new();
    for start in from {
        for item in *start.. {
            match items.get(item)? {
                // Compared as a byte.
                Op::Mark(_) if matches!(items.get(item + 1), Some(Op::Mark(_))) => return None,
                Op::Mark(_) => {}
                // At its end a run may leave the rest out.
                Op::Class { last: true, .. } if later => return None,
                Op::Class { quantifier, .. } => {
                    open.push(item);
                    if *quantifier == Quantifier::None || (*quantifier == Quantifier::Plus && !survives) {
                        break;
                    }
                }
                Op::Literal(_) => {
                    open.push(item);
                    break;
                }
            }
        }
    }
    Some(open)
}

/// Without a mark at the beginning.
fn unmarked(items: &[Op]) -> &[Op] {
    match items {
        [Op::Mark(_), rest @ ..] => rest,
        _ => items,
    }
}

/// How many items every success must pass: all of them, but for a single byte behind a class
/// without quantifier at the very end, which a run that goes on from before may leave out.
fn obliged(items: &[Op]) -> usize {
    match items {
        [.., Op::Class { quantifier: Quantifier::None, .. }, Op::Literal(_)] => items.len() - 1,
        _ => items.len(),
    }
}

/// The literals that a program begins with.
fn leading_literal(items: &[Op]) -> Box<[u8]> {
    let items = items.iter().skip_while(|op| matches!(op, Op::Mark(0)));
    let literals = items.map_while(|op| match op {
        Op::Literal(byte) => Some(*byte),
        _ => None,
    });
    literals.collect()
}

/// The longest run of literals with nothing at all between them. A class of one byte is a literal like any other, and a run
/// of it begins and ends with one.
///
/// The second answer tells whether the program begins with it.
fn longest_literal(items: &[Op]) -> (Box<[u8]>, bool) {
    let (mut best, mut current): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    let (mut best_leads, mut leads) = (false, true);
    let items = unmarked(items);
    // Classes behind the last literal may be left out at the end of a subject.
    let firm = items.iter().rposition(|op| matches!(op, Op::Literal(_))).unwrap_or(0);
    let survives = run_survives(items);
    for (place, op) in items.iter().copied().enumerate() {
        let single = match op {
            Op::Class { set, quantifier: Quantifier::None, .. } if place < firm => set.single(),
            Op::Class { set, quantifier: Quantifier::Plus, .. } if place < firm && !survives => set.single(),
            _ => None,
        };
        match (op, single) {
            (Op::Literal(byte), _) | (_, Some(byte)) => current.push(byte.to_ascii_lowercase()),
            _ => {
                current.clear();
                leads = false;
            }
        }
        if literal::worth(&current) > literal::worth(&best) {
            best.clone_from(&current);
            best_leads = leads;
        }
        if let (Op::Class { quantifier: Quantifier::Plus, .. }, Some(byte)) = (op, single) {
            current = vec![byte];
            leads = false;
        }
    }
    (best.into(), best_leads)
}

/// Whether a run can last beyond its class: the byte on which it goes over to a class without quantifier does not end it, and
/// a later `+` is then passed without a byte of its own.
fn run_survives(items: &[Op]) -> bool {
    let overlap =
        |one: Members, other: Members| (1..=u8::MAX).any(|byte| one.contains(byte) && other.contains(byte));
    (0..items.len()).any(|place| match (items[place], unmarked(&items[place + 1..]).first()) {
        (Op::Class { quantifier: Quantifier::None, .. } | Op::Literal(_) | Op::Mark(_), _) => false,
        (Op::Class { set, .. }, Some(Op::Class { set: next, quantifier: Quantifier::None, .. })) => {
            overlap(set, *next)
        }
        _ => false,
    })
}
