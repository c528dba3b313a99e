//! Loads rule files in the given order (analysis-rules 1). Errors are collected over all files; the caller refuses
//! the set if there is one.

use tld_model::RuleId;
use tld_xml::{Diagnostic, Element, Source};

use super::read::{self, Context};
use super::tree::{Placed, Tree};
use super::{Rules, Wanted, attribute};
use crate::list::Lists;
use crate::ruleset::Options;

/// Reads all files.
pub(crate) fn load(
    sources: &[Source],
    known_decoder: &dyn Fn(&str) -> bool,
    lists: &Lists,
    options: &Options,
    diagnostics: &mut Vec<Diagnostic>,
) -> Rules {
    let mut tree = Tree::default();
    for source in sources {
        match tld_xml::parse(source) {
            Ok(roots) => {
                for root in &roots {
                    let Some(group) = group_name(source, root, diagnostics) else { continue };
                    let context = Context { source, group, known_decoder, lists, options };
                    for element in &root.children {
                        rule(&context, element, &mut tree, diagnostics);
                    }
                }
            }
            Err(problem) => diagnostics.push(problem),
        }
    }
    tree.finish()
}

fn group_name<'a>(source: &Source, root: &'a Element, diagnostics: &mut Vec<Diagnostic>) -> Option<&'a [u8]> {
    if !root.is("group") {
        let message = format!("`{}` cannot stand here, only `group` can", root.name);
        diagnostics.push(Diagnostic::error(source, root.name_span, message));
        return None;
    }
    match root.attributes.as_slice() {
        [name] if name.name.eq_ignore_ascii_case("name") => Some(&name.value),
        _ => {
            diagnostics.push(Diagnostic::error(
                source,
                root.name_span,
                "a group has exactly one attribute, `name`",
            ));
            None
        }
    }
}

fn rule(context: &Context<'_>, element: &Element, tree: &mut Tree, diagnostics: &mut Vec<Diagnostic>) {
    let source = context.source;
    if !element.is("rule") {
        let message = format!("`{}` cannot stand here, only `rule` can", element.name);
        diagnostics.push(Diagnostic::error(source, element.name_span, message));
        return;
    }
    let Some(attributes) = attribute::read(source, element, diagnostics) else { return };
    let warning = |message: String| Diagnostic::warning(source, element.name_span, message);
    let id = attributes.id;
    let known = tree.rules.by_id.get(&RuleId(id)).copied();
    match (known, attributes.overwrite) {
        (Some(_), false) => {
            let message = format!("rule {id} exists already, so this one is skipped");
            diagnostics.push(warning(message).with_help("say `overwrite=\"yes\"` to replace it"));
            return;
        }
        (None, true) => {
            diagnostics.push(warning(format!("there is no rule {id} to overwrite, taken as a new rule")));
        }
        _ => {}
    }
    let Some(draft) = read::rule(context, element, attributes, diagnostics) else { return };
    if let Some(index) = known {
        let wanted = describe(&draft.wanted);
        if tree.overwrite(index, draft) {
            let message =
                format!("rule {id} keeps its place, {wanted} of the overwriting rule has no effect");
            diagnostics.push(Diagnostic::info(source, element.name_span, message));
        }
        return;
    }
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match tree.add(draft) {
        Placed::Done => {}
        Placed::Missing(ids) => {
            diagnostics.push(warning(format!("rule {id} refers to rules that do not exist: {}", list(&ids))));
        }
        Placed::Orphan(ids) => {
            let message = format!("rule {id} is skipped: these rules do not exist: {}", list(&ids));
            diagnostics.push(warning(message));
        }
        Placed::Nowhere => {
            diagnostics.push(warning(format!("rule {id} is skipped: no rule can be its parent")));
        }
        Placed::TooDeep => diagnostics.push(Diagnostic::error(
            source,
            element.name_span,
            format!("rule {id} hangs below too many others"),
        )),
    }
}

fn describe(wanted: &Wanted) -> &'static str {
    if wanted.sids.is_some() {
        "`if_sid`"
    } else if wanted.group.is_some() {
        "`if_group`"
    } else if wanted.level.is_some() {
        "`if_level`"
    } else {
        "`if_matched_*`"
    }
}
