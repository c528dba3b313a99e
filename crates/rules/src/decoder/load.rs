//! Decoder files to decoders: reading, checking, and hanging children under their parents (analysis-decoders 1, 2).
//!
//! Every problem of every file is reported with its place. A decoder with an error is left out of the tree but
//! its name is remembered, so that one mistake is not reported again by everything that refers to it.

use std::collections::HashSet;
use std::sync::Arc;

use tld_xml::{Diagnostic, Element, Source};

use super::{
    Action, BUILT_IN, Decoder, DecoderInfo, DecoderOptions, Decoders, Field, FtsField, JsonOptions, Literals,
    Marks, Offset, Prematch, Regex, Top, Work,
};
use crate::Category;
use crate::decoder::contested;
use crate::decoder::load::element::Draft;
use crate::decoder::prefilter::{self, Prefilter};
use crate::fields::FieldNames;
use crate::lexicon::Lexicon;

mod element;
mod tree;

/// Most decoders that are asked before the pass over the log.
const MOST_QUICK: usize = 4;

pub(super) fn load(
    sources: &[Source],
    options: &DecoderOptions,
    diagnostics: &mut Vec<Diagnostic>,
) -> Decoders {
    let mut decoders = Decoders {
        entries: BUILT_IN.iter().map(|name| built_in_entry(name)).collect(),
        marks: Vec::new(),
        prematches: Vec::new(),
        regexes: Vec::new(),
        orders: Vec::new(),
        with_program: Vec::new(),
        without_program: Vec::new(),
        named: Prefilter::default(),
        prefilter: Prefilter::default(),
        lexicon: Lexicon::new(Vec::new()),
        quick: 0,
        names: BUILT_IN.iter().map(|name| (*name).to_owned()).collect(),
        rules: HashSet::new(),
        fields: FieldNames::default(),
        order_size: options.order_size,
        identity: Arc::new(()),
    };
    for source in sources {
        match tld_xml::parse(source) {
            Err(problem) => diagnostics.push(problem),
            Ok(roots) => {
                for root in &roots {
                    let mut reader = Reader { source, diagnostics, failed: false };
                    reader.decoder(root, &mut decoders);
                }
            }
        }
    }
    let asked = |top: &&Top| {
        let prematch = decoders.prematch(top.work);
        prematch.is_some_and(|prematch| prematch.expression.refuses_quickly())
    };
    decoders.quick = decoders.without_program.iter().take(MOST_QUICK).take_while(asked).count();
    prefilter::prepare(&mut decoders, Vec::new());
    let marks = |info: &DecoderInfo| Marks { accumulate: info.accumulate, assesses: info.name == "sca" };
    decoders.marks = decoders.entries.iter().map(|entry| marks(&entry.info)).collect();
    decoders
}

/// A decoder and its expressions, which do not have their numbers yet.
struct Built {
    decoder: Decoder,
    prematch: Option<Prematch>,
    regex: Option<(Regex, Vec<Field>)>,
}

/// What one root element is read with.
struct Reader<'a> {
    source: &'a Source,
    diagnostics: &'a mut Vec<Diagnostic>,
    /// The decoder being read has an error.
    failed: bool,
}

impl Reader<'_> {
    fn decoder(&mut self, root: &Element, decoders: &mut Decoders) {
        if !root.is("decoder") {
            let message = format!("element `{}` has no place in a decoder file", root.name);
            self.error(root.name_span, message, "only `<decoder>` elements stand here");
            return;
        }
        let Some(draft) = self.draft(root, decoders.order_size) else { return };
        decoders.names.insert(draft.name.clone());
        self.check(root, &draft);
        let built = self.build(root, draft);
        tree::place(self, root, built, decoders);
    }

    fn error(&mut self, span: tld_xml::Span, message: impl Into<String>, help: impl Into<String>) {
        self.failed = true;
        self.diagnostics.push(Diagnostic::error(self.source, span, message).with_help(help));
    }

    fn warning(&mut self, span: tld_xml::Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::warning(self.source, span, message).with_help(help));
    }

    /// The checks that need no other decoder.
    fn check(&mut self, root: &Element, draft: &Draft) {
        let name = &draft.name;
        let span = root.name_span;
        let has_parent = draft.parent.is_some();
        let regex = &draft.regex;
        let prematch = &draft.prematch;
        if prematch.text.is_none() && !has_parent && draft.program.text.is_none() {
            let message = format!("decoder `{name}` would take every event");
            self.error(span, message, "add `<prematch>`, `<program_name>` or `<parent>`");
        }
        if draft.order.is_some() && regex.text.is_none() && draft.plugin.is_none() {
            self.error(span, format!("decoder `{name}` has `order` without `regex`"), "add the `<regex>`");
        }
        if !draft.fts.is_empty() && regex.text.is_none() {
            self.error(span, format!("decoder `{name}` has `fts` without `regex`"), "add the `<regex>`");
        }
        if regex.text.is_some() && draft.order.is_none() && draft.plugin.is_none() {
            let help = "name the field of each group in `<order>`";
            self.error(span, format!("decoder `{name}` has `regex` without `order`"), help);
        }
        if draft.plugin.is_some() && (regex.text.is_some() || draft.order.is_some()) {
            let message = format!("decoder `{name}` has a plugin together with `regex` or `order`");
            self.error(span, message, "use one or the other");
        }
        if !matches!(prematch.offset, Offset::Start | Offset::AfterParent) {
            let message = format!("prematch of decoder `{name}` has an offset other than `after_parent`");
            self.error(prematch.span, message, "write `offset=\"after_parent\"` or leave it out");
        }
        let offsets = [(prematch.offset, prematch.span), (regex.offset, regex.span)];
        let plugin_offset = draft.plugin.map(|plugin| (plugin.offset, plugin.span));
        for (offset, span) in offsets.into_iter().chain(plugin_offset) {
            let plugin = plugin_offset == Some((offset, span));
            match offset {
                Offset::AfterParent | Offset::AfterRegex if !has_parent => {
                    let message = format!("decoder `{name}` has no parent for its offset");
                    self.error(span, message, "add `<parent>` or leave the offset out");
                }
                Offset::AfterPrematch if prematch.text.is_none() && (has_parent || plugin) => {
                    let message = format!("decoder `{name}` has no prematch of its own for its offset");
                    self.error(span, message, "add `<prematch>` or use `after_parent`");
                }
                _ => {}
            }
        }
    }

    /// Compiles the expressions.
    fn build(&mut self, root: &Element, draft: Draft) -> Option<Built> {
        let program = self.compile(&draft.program).map(Box::new);
        let prematch = self.compile(&draft.prematch).map(|expression| Prematch {
            expression,
            literals: Literals::default(),
            offset: draft.prematch.offset,
        });
        let regex = self.compile(&draft.regex).map(|expression| {
            // A decoder without parent has one place behind a prematch: its own.
            let offset = match draft.regex.offset {
                Offset::AfterPrematch if draft.parent.is_none() => Offset::AfterParent,
                offset => offset,
            };
            let order = draft.order.unwrap_or_default();
            let rivals = contested::Rivals::new(&expression, &order).into();
            (Regex { expression, offset, order: (0, 0), rivals, literals: Literals::default() }, order)
        });
        let action = match draft.plugin {
            Some(plugin) => Action::Plugin { plugin: plugin.plugin, offset: plugin.offset },
            None => Action::None,
        };
        if self.failed {
            return None;
        }
        let name = match &draft.parent {
            Some((parent, _)) if !draft.use_own_name => parent.clone(),
            _ => draft.name.clone(),
        };
        let info = DecoderInfo {
            name,
            own_name: draft.name,
            parent: draft.parent.map(|(parent, _)| parent),
            category: draft.category,
            fts: draft.fts,
            ftscomment: draft.ftscomment,
            accumulate: draft.accumulate,
            file: Arc::clone(&self.source.name),
            line: self.source.line_of(root.span),
        };
        let work = Work { prematch: None, action, category: info.category };
        let is_child = info.parent.is_some();
        let decoder = Decoder { work, json: draft.json, is_child, program, info: info.into() };
        Some(Built { decoder, prematch, regex })
    }

    fn compile(&mut self, text: &element::Text) -> Option<tld_pattern::Expression> {
        match tld_pattern::Expression::compile(text.kind, text.text.as_deref()?) {
            Ok(expression) => Some(expression),
            Err(problem) => {
                let help = "the dialects are osregex, osmatch and pcre2; see attribute `type`";
                self.error(text.span, format!("the expression cannot be used: {problem}"), help);
                None
            }
        }
    }
}

fn built_in_entry(name: &str) -> Decoder {
    Decoder {
        info: Box::new(DecoderInfo {
            name: name.to_owned(),
            own_name: name.to_owned(),
            parent: None,
            category: Category::Ossec,
            fts: Vec::<FtsField>::new(),
            ftscomment: None,
            accumulate: false,
            file: "".into(),
            line: 0,
        }),
        program: None,
        work: Work { prematch: None, action: Action::None, category: Category::Ossec },
        json: JsonOptions::default(),
        is_child: false,
    }
}
