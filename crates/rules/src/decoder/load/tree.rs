//! Where a decoder goes: into one of the two top-level lists, or under every top-level decoder of its parent's name.

use tld_xml::Element;

use super::{Built, Reader};
use crate::decoder::{Action, Child, Decoder, Decoders, Field, Offset, Prematch, Regex, Top, Work};
use crate::lexicon::Needed;

/// Adds a decoder, or only checks the name it refers to if it could not be built.
pub(super) fn place(reader: &mut Reader<'_>, root: &Element, built: Option<Built>, decoders: &mut Decoders) {
    let Some(built) = built else { return };
    let Some(number) = u16::try_from(decoders.entries.len()).ok().filter(|number| *number < u16::MAX) else {
        reader.error(root.name_span, "too many decoders", "at most 65 000 decoders can be loaded");
        return;
    };
    let Built { mut decoder, prematch, regex } = built;
    let goes_on = regex.as_ref().is_some_and(|(regex, _)| regex.offset == Offset::AfterRegex);
    decoder.work = keep(decoders, decoder.work, prematch, regex);
    let work = decoder.work;
    let Some(parent) = decoder.info.parent.clone() else {
        let list = match decoder.program {
            Some(_) => &mut decoders.with_program,
            None => &mut decoders.without_program,
        };
        list.push(Top { decoder: number, work, children: Vec::new(), read: false });
        decoders.entries.push(decoder);
        return;
    };
    let entries = &decoders.entries;
    let tops = decoders.with_program.iter_mut().chain(&mut decoders.without_program);
    let own = |top: &Top| entries.get(usize::from(top.decoder)).is_some_and(|d| d.info.own_name == parent);
    let parents: Vec<&mut Top> = tops.filter(|top| own(top)).collect();
    if parents.is_empty() {
        // A parent that failed to load has been reported where it stands.
        if !decoders.names.contains(&parent) || entries.iter().any(|d| d.info.own_name == parent) {
            let message = format!("there is no top-level decoder `{parent}` before this one");
            let help = "a parent stands earlier (files are sorted by name) and has no parent itself";
            reader.error(root.name_span, message, help);
        }
        return;
    }
    for parent in parents {
        if !join_siblings(reader, root, (&decoder, goes_on), entries, &mut parent.children) {
            return;
        }
        parent.children.push(Child {
            decoder: number,
            work,
            go_on: false,
            prematch: Needed::Unknown,
            regex: Needed::Unknown,
        });
    }
    decoders.entries.push(decoder);
}

/// Puts a decoder's expressions behind those before, and tells their numbers.
fn keep(
    decoders: &mut Decoders,
    work: Work,
    prematch: Option<Prematch>,
    regex: Option<(Regex, Vec<Field>)>,
) -> Work {
    // There are no more of them than decoders.
    let (prematches, regexes) = (decoders.prematches.len() as u16, decoders.regexes.len() as u16);
    let work = Work { prematch: prematch.is_some().then_some(prematches), ..work };
    decoders.prematches.extend(prematch);
    let Some((regex, order)) = regex else { return work };
    let start = decoders.orders.len() as u32;
    decoders.orders.extend(order);
    decoders.regexes.push(Regex { order: (start, decoders.orders.len() as u32), ..regex });
    Work { action: Action::Regex(regexes), ..work }
}

/// Marks earlier siblings of the same name, which then go on to the next in the list.
fn join_siblings(
    reader: &mut Reader<'_>,
    root: &Element,
    (decoder, goes_on): (&Decoder, bool),
    entries: &[Decoder],
    siblings: &mut [Child],
) -> bool {
    let name = &decoder.info.own_name;
    let mut earlier_takes_part = false;
    let mut earlier = false;
    let mut reads = true;
    for sibling in siblings {
        let Some(other) =
            entries.get(usize::from(sibling.decoder)).filter(|other| other.info.own_name == *name)
        else {
            continue;
        };
        earlier = true;
        sibling.go_on = true;
        earlier_takes_part |= matches!(other.work.action, Action::Regex(_)) || other.work.prematch.is_some();
        reads &= !matches!(other.work.action, Action::None);
    }
    reads &= !matches!(decoder.work.action, Action::None);
    let span = root.name_span;
    if goes_on && !earlier_takes_part {
        let message = format!("decoder `{name}` has `after_regex` but no earlier sibling of its name");
        reader.error(span, message, "use `after_prematch` or `after_parent`");
        return false;
    }
    if earlier && (decoder.work.prematch.is_some() || !decoder.info.fts.is_empty()) {
        let message =
            format!("decoder `{name}` continues an earlier one and cannot have `prematch` or `fts`");
        reader.error(span, message, "put them into the first decoder of that name, or choose another name");
        return false;
    }
    if earlier && !reads {
        let message = format!("decoders `{name}` follow each other, so each needs a regex or a plugin");
        reader.error(span, message, "add the `<regex>`, or choose another name");
        return false;
    }
    true
}
