//! The children of one `<decoder>`, as read: texts joined, values understood, nothing compiled.

use tld_pattern::Kind;
use tld_xml::{Element, Span};

use super::Reader;
use crate::decoder::plugin::Plugin;
use crate::decoder::{Field, FtsField, JsonOptions, Name, Offset};
use crate::{Category, StaticField};

/// One piece is shorter than this, and so are all pieces of a text together.
const TEXT_LENGTH: usize = 1024;

/// A text that may be given in several elements, without separator between them.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: Option<Vec<u8>>,
    pub(super) kind: Kind,
    pub(super) offset: Offset,
    pub(super) span: Span,
}

impl Text {
    fn new(kind: Kind) -> Self {
        Self { text: None, kind, offset: Offset::Start, span: Span::default() }
    }
}

/// A named plugin.
#[derive(Debug, Clone, Copy)]
pub(super) struct PluginUse {
    pub(super) plugin: Plugin,
    pub(super) offset: Offset,
    pub(super) span: Span,
}

/// A decoder as read.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) parent: Option<(String, Span)>,
    pub(super) program: Text,
    pub(super) prematch: Text,
    pub(super) regex: Text,
    pub(super) order: Option<Vec<Field>>,
    pub(super) fts: Vec<FtsField>,
    pub(super) ftscomment: Option<String>,
    pub(super) category: Category,
    pub(super) use_own_name: bool,
    pub(super) plugin: Option<PluginUse>,
    pub(super) json: JsonOptions,
    pub(super) accumulate: bool,
}

impl Reader<'_> {
    /// Reads a decoder's element; none if it has no usable name.
    pub(super) fn draft(&mut self, root: &Element, order_size: usize) -> Option<Draft> {
        let name = self.name(root)?;
        let mut draft = Draft {
            name,
            parent: None,
            program: Text::new(Kind::OsMatch),
            prematch: Text::new(Kind::OsRegex),
            regex: Text::new(Kind::OsRegex),
            order: None,
            fts: Vec::new(),
            ftscomment: None,
            category: Category::Syslog,
            use_own_name: false,
            plugin: None,
            json: JsonOptions::default(),
            accumulate: false,
        };
        let mut parent = Text::new(Kind::Exact);
        let mut comment = Text::new(Kind::Exact);
        let mut wanted = Vec::new();
        for child in &root.children {
            match child.name.to_ascii_lowercase().as_str() {
                "parent" => self.append(&mut parent, child),
                "program_name" => self.expression(&mut draft.program, child, true),
                "prematch" => self.expression(&mut draft.prematch, child, false),
                "regex" => self.expression(&mut draft.regex, child, false),
                "ftscomment" => self.append(&mut comment, child),
                "order" => draft.order = Some(self.order(child, order_size)),
                "fts" => wanted.push(child),
                "type" if child.name == "type" => self.category(&mut draft, child),
                "use_own_name" => draft.use_own_name |= child.content == b"true",
                "plugin_decoder" => draft.plugin = self.plugin(child),
                "json_null_field" => draft.json.discard_null = self.choice(child, ["string", "discard"]),
                "json_array_structure" => draft.json.csv_arrays = self.choice(child, ["array", "csv"]),
                "accumulate" => draft.accumulate = true,
                _ => {
                    let message = format!("element `{}` has no place in a decoder", child.name);
                    let help = "known are parent, program_name, prematch, regex, order, fts, ftscomment, type, \
                                use_own_name, plugin_decoder, json_null_field, json_array_structure, accumulate";
                    self.error(child.name_span, message, help);
                }
            }
        }
        let as_text = |text: Text| text.text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let parent_span = parent.span;
        draft.parent = as_text(parent).map(|parent| (parent, parent_span));
        draft.ftscomment = as_text(comment);
        for child in wanted {
            self.fts(child, &mut draft);
        }
        Some(draft)
    }

    fn name(&mut self, root: &Element) -> Option<String> {
        let mut attributes = root.attributes.iter();
        let name = attributes.next().filter(|first| first.name.eq_ignore_ascii_case("name"));
        let Some(name) = name.filter(|name| !name.value.is_empty()) else {
            let help = "write `<decoder name=\"…\">`, with the name first";
            self.error(root.name_span, "a decoder has no name", help);
            return None;
        };
        let second = attributes.next();
        let unknown = second.filter(|a| !a.name.eq_ignore_ascii_case("status")).or_else(|| attributes.next());
        if let Some(unknown) = unknown {
            let message = format!("attribute `{}` has no place on a decoder", unknown.name);
            self.error(unknown.span, message, "only `name`, and `status` behind it");
        }
        Some(name.text().into_owned())
    }

    fn append(&mut self, text: &mut Text, child: &Element) {
        if text.text.is_none() {
            text.span = child.content_span;
        }
        let before = text.text.as_ref().map_or(0, Vec::len);
        if before + child.content.len() >= TEXT_LENGTH {
            text.text = None;
            let message = format!("`{}` is longer than {} bytes and is lost", child.name, TEXT_LENGTH - 1);
            self.warning(child.name_span, message, "shorten it, or divide the decoder");
            return;
        }
        text.text.get_or_insert_default().extend_from_slice(&child.content);
    }

    fn expression(&mut self, text: &mut Text, child: &Element, osmatch: bool) {
        let first = text.text.is_none();
        if let Some(attribute) = child.attribute("type") {
            match Kind::from_name(&attribute.text()).filter(|kind| osmatch || *kind != Kind::OsMatch) {
                Some(kind) => text.kind = kind,
                None => {
                    text.kind = if osmatch { Kind::OsMatch } else { Kind::OsRegex };
                    let message =
                        format!("type `{}` is not available for `{}`", attribute.text(), child.name);
                    self.warning(attribute.span, message, "the default type is used");
                }
            }
        }
        if let Some(attribute) = child.attributes.iter().find(|a| a.name.eq_ignore_ascii_case("offset"))
            && first
            && !osmatch
        {
            text.offset = offset(&attribute.text()).unwrap_or_else(|| {
                let message = format!("offset `{}` is unknown and ignored", attribute.text());
                self.warning(attribute.span, message, OFFSETS);
                Offset::Start
            });
        }
        self.append(text, child);
    }

    fn order(&mut self, child: &Element, most: usize) -> Vec<Field> {
        let text = child.text();
        let fields: Vec<Field> = names(&text).map(field).collect();
        if fields.len() >= most {
            let message = format!("`order` names {} fields; the limit is {}", fields.len(), most - 1);
            self.error(child.content_span, message, "raise `decoder_order_size`, or divide the decoder");
        }
        if let Some(empty) = fields.iter().position(|field| *field == Field::Dynamic(Name::new(b""), None)) {
            let message = format!("name {} of `order` is empty", empty + 1);
            self.warning(child.content_span, message, "its group goes to a field without name");
        }
        fields
    }

    fn fts(&mut self, child: &Element, draft: &mut Draft) {
        let text = child.text();
        for name in names(&text) {
            let ordered =
                |field: &Field| matches!(field, Field::Dynamic(known, _) if known.bytes() == name.as_bytes());
            let part = match name {
                "dstuser" | "user" => FtsField::Static(StaticField::DstUser),
                "srcuser" | "srcip" | "dstip" | "id" | "data" | "system_name" => {
                    match StaticField::from_name(name) {
                        Some(field) => FtsField::Static(field),
                        None => continue,
                    }
                }
                "extra_data" => FtsField::Static(StaticField::Data),
                "location" => FtsField::Location,
                "name" => FtsField::Name,
                name if draft.order.as_ref().is_some_and(|order| order.iter().any(ordered)) => {
                    FtsField::Dynamic(name.into())
                }
                name => {
                    let help = "known are dstuser, srcuser, srcip, dstip, id, location, data, system_name, name, \
                                and the dynamic fields of this decoder's `order`";
                    self.error(child.content_span, format!("`fts` cannot use `{name}`"), help);
                    continue;
                }
            };
            if !draft.fts.contains(&part) {
                draft.fts.push(part);
            }
        }
    }

    fn category(&mut self, draft: &mut Draft, child: &Element) {
        draft.category = match &*child.content {
            b"firewall" => Category::Firewall,
            b"ids" => Category::Ids,
            b"web-log" => Category::WebLog,
            b"syslog" => Category::Syslog,
            b"squid" => Category::Squid,
            b"windows" => Category::Windows,
            b"host-information" => Category::HostInformation,
            b"ossec" => Category::Ossec,
            _ => {
                let help =
                    "known are firewall, ids, web-log, syslog, squid, windows, host-information, ossec";
                self.error(child.content_span, format!("type `{}` is unknown", child.text()), help);
                return;
            }
        };
    }

    fn plugin(&mut self, child: &Element) -> Option<PluginUse> {
        let span = child.content_span;
        let mut place = Offset::Start;
        if let Some(attribute) = child.attributes.iter().find(|a| a.name.eq_ignore_ascii_case("offset")) {
            match offset(&attribute.text()) {
                Some(found) => place = found,
                None => {
                    self.error(attribute.span, format!("offset `{}` is unknown", attribute.text()), OFFSETS);
                }
            }
        }
        let plugin = Plugin::from_name(&child.text());
        if plugin.is_none() {
            let known: Vec<&str> = Plugin::NAMES.iter().map(|(name, _)| *name).collect();
            let message = format!("plugin `{}` is unknown", child.text());
            self.error(span, message, format!("known are {}", known.join(", ")));
        }
        plugin.map(|plugin| PluginUse { plugin, offset: place, span })
    }

    /// True for the second of two values; the first is the default.
    fn choice(&mut self, child: &Element, values: [&str; 2]) -> bool {
        let text = child.text();
        if !values.contains(&&*text) {
            let message = format!("`{}` cannot be `{text}`", child.name);
            self.warning(child.content_span, message, format!("`{}` is used", values[0]));
        }
        text == values[1]
    }
}

const OFFSETS: &str = "known are after_parent, after_prematch and after_regex";

fn offset(text: &str) -> Option<Offset> {
    [
        ("after_parent", Offset::AfterParent),
        ("after_prematch", Offset::AfterPrematch),
        ("after_regex", Offset::AfterRegex),
    ]
    .into_iter()
    .find_map(|(name, offset)| text.eq_ignore_ascii_case(name).then_some(offset))
}

/// Names between commas: leading blanks are dropped, and the next blank ends a name.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let name = |piece: &'_ str| -> usize { piece.find(' ').unwrap_or(piece.len()) };
    text.split(',').map(move |piece| {
        let piece = piece.trim_start_matches(' ');
        piece.get(..name(piece)).unwrap_or(piece)
    })
}

fn field(name: &str) -> Field {
    let name = if name == "user" { "dstuser" } else { name };
    StaticField::from_name(name)
        .map_or_else(|| Field::Dynamic(Name::new(name.as_bytes()), None), Field::Static)
}
