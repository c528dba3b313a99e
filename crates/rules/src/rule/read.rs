//! Reads one `rule` element (analysis-rules 1.2). Repeated text elements are joined without separator, and kind and
//! negation of the last piece count, so texts are collected first and compiled afterwards.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tld_model::RuleId;
use tld_pattern::{Expression, IpList, Kind, Network, OsMatch, OsRegex};
use tld_xml::{Diagnostic, Element, Source};

use super::attribute::Attributes;
use super::condition::{Builtin, Condition, Label, ListTest, Lookup, Test};
use super::correlation::{self, Correlation};
use super::subject::Subject;
use super::time::{DayTime, Weekdays};
use super::{Draft, IgnoreLine, Place, Rule, RuleInfo, Shown, Wanted, mitre};
use crate::list::Lists;
use crate::ruleset::Options;
use crate::{Category, StaticField};

/// One piece of a text must be shorter.
const PIECE_LIMIT: usize = 2048;
/// More `list` elements than these are not evaluated (analysis-rules 7.2).
const LISTS_EVALUATED: usize = 2;

/// What a rule is read against.
pub(crate) struct Context<'a> {
    pub(crate) source: &'a Source,
    /// `name` of the surrounding group.
    pub(crate) group: &'a [u8],
    pub(crate) known_decoder: &'a dyn Fn(&str) -> bool,
    pub(crate) lists: &'a Lists,
    pub(crate) options: &'a Options,
}

/// Reads the rule; `None` when it is skipped or wrong, which has then been reported.
pub(crate) fn rule(
    context: &Context<'_>,
    element: &Element,
    attributes: Attributes,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Draft> {
    let errors = diagnostics.len();
    let mut reader = Reader::new(context, diagnostics);
    for child in &element.children {
        reader.child(child);
    }
    let skipped = reader.finish();
    let Reader { texts, mut conditions, blocks, correlation, composite_only, flags, category, .. } = reader;
    let wanted = wanted(context, &texts, diagnostics);
    let correlated =
        wanted.matched_sid.is_some() || wanted.matched_group.is_some() || wanted.matched_regex.is_some();
    let composite =
        correlated || conditions.iter().any(|condition| matches!(condition.test, Test::Difference));
    if !composite {
        if let Some(name_span) = composite_only {
            diagnostics.push(composite_error(context.source, name_span));
        }
        if let Some(frequency) = element.attribute("frequency") {
            diagnostics.push(composite_error(context.source, frequency.span));
        }
    }
    if !texts.iter().any(|text| text.name == "description") {
        diagnostics.push(Diagnostic::error(context.source, element.name_span, "rule without `description`"));
    }
    if let Some(size) = attributes.max_size {
        let line = context.source.line_of(element.span);
        let label = Label { name: "maxsize", line };
        conditions.push(Condition { label, rank: 19, test: Test::MaxSize(size) });
    }
    conditions.sort_by_key(|condition| condition.rank);
    let lists = conditions.iter().filter(|condition| matches!(condition.test, Test::List(_))).count();
    let mut surplus = lists.saturating_sub(LISTS_EVALUATED);
    conditions.retain(|condition| {
        let drop = surplus > 0 && matches!(condition.test, Test::List(_));
        surplus -= usize::from(drop);
        !drop
    });
    let mitre = mitre::read(context.source, &blocks, diagnostics);
    if skipped || wanted.skip || diagnostics[errors..].iter().any(Diagnostic::is_error) {
        return None;
    }
    let rule = Rule {
        key: sort_key(&attributes),
        hash: hash(context.group, element),
        category,
        tests: (0, 0),
        correlated,
        correlation: Correlation {
            frequency: attributes.frequency.unwrap_or(2).saturating_sub(2),
            timeframe: attributes.timeframe.unwrap_or(context.options.default_timeframe),
            ..correlation
        },
        feeds: (0, 0),
        ignore_line: text(&texts, "ignore").map(|names| Box::new(ignore_line(names))),
        no_full_log: flags.no_full_log,
        no_counter: flags.no_counter,
        constant: crate::alert::Constant::default(),
        shown: Shown {
            mitre,
            cve: text(&texts, "cve").unwrap_or_default().to_vec(),
            info: text(&texts, "info").unwrap_or_default().to_vec(),
        },
        place: Place::default(),
        info: info(context, element, &attributes, &texts, &flags),
        ignore_by: attributes.ignore_by,
    };
    Some(Draft { rule, conditions, wanted: wanted.wanted })
}

fn info(
    context: &Context<'_>,
    element: &Element,
    attributes: &Attributes,
    texts: &[Text<'_>],
    flags: &Flags,
) -> RuleInfo {
    let mut groups = context.group.to_vec();
    groups.extend_from_slice(text(texts, "group").unwrap_or_default());
    let options = context.options;
    RuleInfo {
        id: RuleId(attributes.id),
        level: attributes.level,
        groups: String::from_utf8_lossy(&groups).into(),
        description: text(texts, "description").unwrap_or_default().to_vec(),
        log: (attributes.level >= options.log_alert_level || flags.log_alert) && !flags.no_log,
        mail: (attributes.level >= options.email_alert_level || flags.email) && !flags.no_email,
        no_ar: flags.no_ar,
        noalert: attributes.noalert,
        frequency: None,
        timeframe: attributes.timeframe.unwrap_or(options.default_timeframe),
        ignore: attributes.ignore,
        parents: Vec::new(),
        file: Arc::clone(&context.source.name),
        line: context.source.line_of(element.span),
    }
}

fn sort_key(attributes: &Attributes) -> u32 {
    let key = if attributes.level == 0 { 99 } else { u32::from(attributes.level) };
    if attributes.behind_others { key } else { key * 100 }
}

fn composite_error(source: &Source, span: tld_xml::Span) -> Diagnostic {
    Diagnostic::error(source, span, "only a rule that looks at earlier events can have this")
        .with_help("add `if_matched_sid`, `if_matched_group`, `if_matched_regex` or `check_diff`")
}

fn ignore_line(names: &[u8]) -> IgnoreLine {
    let text = String::from_utf8_lossy(names);
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect();
    IgnoreLine { names }
}

/// The same text gives the same hash in every process of one build.
fn hash(group: &[u8], element: &Element) -> u64 {
    fn feed(element: &Element, hasher: &mut DefaultHasher) {
        element.name.hash(hasher);
        for attribute in &element.attributes {
            attribute.name.hash(hasher);
            attribute.value.hash(hasher);
        }
        element.content.hash(hasher);
        element.children.len().hash(hasher);
        for child in &element.children {
            feed(child, hasher);
        }
    }
    let mut hasher = DefaultHasher::new();
    group.hash(&mut hasher);
    feed(element, &mut hasher);
    hasher.finish()
}

/// A text of one or more pieces.
struct Text<'a> {
    name: &'static str,
    bytes: Vec<u8>,
    last: &'a Element,
}

fn text<'t>(texts: &'t [Text<'_>], name: &str) -> Option<&'t [u8]> {
    texts.iter().find(|text| text.name == name).map(|text| &*text.bytes)
}

#[derive(Default)]
struct Flags {
    email: bool,
    no_email: bool,
    log_alert: bool,
    no_log: bool,
    no_ar: bool,
    no_full_log: bool,
    no_counter: bool,
}

struct Reader<'a, 'd> {
    context: &'a Context<'a>,
    diagnostics: &'d mut Vec<Diagnostic>,
    texts: Vec<Text<'a>>,
    conditions: Vec<Condition>,
    networks: [(IpList, Option<&'a Element>); 2],
    blocks: Vec<&'a Element>,
    correlation: Correlation,
    composite_only: Option<tld_xml::Span>,
    flags: Flags,
    category: Category,
    fields: usize,
    skipped: bool,
}

impl<'a, 'd> Reader<'a, 'd> {
    fn new(context: &'a Context<'a>, diagnostics: &'d mut Vec<Diagnostic>) -> Self {
        Self {
            context,
            diagnostics,
            texts: Vec::new(),
            conditions: Vec::new(),
            networks: Default::default(),
            blocks: Vec::new(),
            correlation: Correlation::default(),
            composite_only: None,
            flags: Flags::default(),
            category: Category::Syslog,
            fields: 0,
            skipped: false,
        }
    }

    fn error(&mut self, element: &Element, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(self.context.source, element.span, message));
    }

    fn condition(&mut self, name: &'static str, rank: u8, element: &Element, test: Test) {
        let line = self.context.source.line_of(element.span);
        self.conditions.push(Condition { label: Label { name, line }, rank, test });
    }

    /// A condition that a rule has or has not, however often it is written.
    fn once(&mut self, name: &'static str, rank: u8, element: &Element, test: Test) {
        if !self.conditions.iter().any(|known| known.label.name == name) {
            self.condition(name, rank, element, test);
        }
    }

    fn only_attributes(&mut self, element: &Element, allowed: &[&str]) {
        for attribute in element.attributes.iter().filter(|known| !allowed.contains(&known.name.as_str())) {
            let message = format!("`{}` has no attribute `{}`", element.name, attribute.name);
            self.diagnostics.push(Diagnostic::error(self.context.source, attribute.span, message));
        }
    }

    fn child(&mut self, element: &'a Element) {
        let name = element.name.to_ascii_lowercase();
        if let Some(of_texts) = TEXTS.iter().find(|text| text.name == name) {
            self.only_attributes(element, of_texts.attributes);
            self.piece(of_texts.name, element);
            return;
        }
        if let Some(wanted) = correlation::Element::from_name(&name) {
            self.only_attributes(element, &[]);
            self.correlation(wanted, element);
            return;
        }
        match name.as_str() {
            "field" => self.field(element),
            "srcip" => self.network(0, element),
            "dstip" => self.network(1, element),
            "list" => self.list(element),
            "mitre" => {
                self.only_attributes(element, &[]);
                self.blocks.push(element);
            }
            "options" => self.option(element),
            "category" => match category(&element.text()) {
                Some(category) => self.category = category,
                None => self.error(element, format!("unknown category `{}`", element.text())),
            },
            "check_diff" => self.once("check_diff", 26, element, Test::Difference),
            "if_fts" => self.once("if_fts", 27, element, Test::FirstTime),
            _ => self.error(element, format!("a rule has no element `{}`", element.name)),
        }
    }

    fn piece(&mut self, name: &'static str, element: &'a Element) {
        let mut piece = element.content.clone();
        if piece.len() >= PIECE_LIMIT {
            let message = format!("`{name}` has {} bytes, fewer than {PIECE_LIMIT} are allowed", piece.len());
            self.error(element, message);
            return;
        }
        match name {
            "description" => {
                if let Some(newline) = piece.iter_mut().find(|byte| **byte == b'\n') {
                    *newline = b' ';
                }
            }
            "group" => piece.retain(|byte| *byte != b'\n'),
            "info" => {
                let kind = element.attribute("type").map(|kind| kind.text().to_ascii_lowercase());
                if kind.is_some_and(|kind| !["text", "link", "cve", "osvdb"].contains(&kind.as_str())) {
                    self.error(element, "`type` of `info` is none of `text`, `link`, `cve`, `osvdb`");
                }
            }
            _ => {}
        }
        match self.texts.iter_mut().find(|text| text.name == name) {
            Some(text) => {
                text.bytes.extend_from_slice(&piece);
                text.last = element;
            }
            None => self.texts.push(Text { name, bytes: piece, last: element }),
        }
    }

    fn correlation(&mut self, wanted: correlation::Element, element: &Element) {
        use correlation::Element as E;
        if wanted == E::Inert {
            let message = format!("`{}` has no effect", element.name);
            self.diagnostics.push(Diagnostic::warning(self.context.source, element.span, message));
            return;
        }
        self.composite_only.get_or_insert(element.span);
        let field: Box<str> = element.text().into();
        if matches!(wanted, E::SameField | E::DifferentField) && field.is_empty() {
            self.error(element, format!("`{}` names no field", element.name));
            return;
        }
        match wanted {
            E::Same(shared) => self.correlation.same.push(shared),
            E::Different(shared) => self.correlation.different.push(shared),
            E::SameField => self.correlation.same_fields.push(field),
            E::DifferentField => self.correlation.different_fields.push(field),
            E::AnyAgent => self.correlation.any_agent = true,
            E::Inert => {}
        }
    }

    fn field(&mut self, element: &Element) {
        self.only_attributes(element, &["name", "type", "negate"]);
        let Some(name) = element.attribute("name") else {
            self.error(element, "`field` without `name`");
            return;
        };
        let name = name.text();
        if STATIC_NAMES.contains(&&*name) {
            self.error(element, format!("`{name}` is no dynamic field, it has an element of its own"));
            return;
        }
        self.fields += 1;
        let most = self.context.options.decoder_order_size;
        if self.fields > most {
            // Told of the first only: what more there are is one mistake.
            if self.fields == most + 1 {
                let message = format!("more `field` elements than `decoder_order_size` allows ({most})");
                self.error(element, message);
            }
            return;
        }
        if element.content.len() >= PIECE_LIMIT {
            self.error(element, "this text is too long");
            return;
        }
        let subject = Subject::Dynamic(name.into(), None);
        self.expression("field", 10, element, &element.content, subject, Kind::OsRegex);
    }

    fn expression(
        &mut self,
        name: &'static str,
        rank: u8,
        element: &Element,
        pattern: &[u8],
        subject: Subject,
        kind: Kind,
    ) {
        let kind = match element.attribute("type") {
            None => Some(kind),
            Some(kind) => Kind::from_name(&kind.text()),
        };
        let (Some(kind), Some(negate)) = (kind, negate(element)) else {
            self.error(element, format!("`type` or `negate` of `{name}` has an unknown value"));
            return;
        };
        match Expression::compile(kind, pattern) {
            Ok(expression) => {
                self.condition(name, rank, element, Test::Expression { subject, expression, negate });
            }
            Err(problem) => self.error(element, format!("`{name}` does not compile: {problem}")),
        }
    }

    fn network(&mut self, which: usize, element: &'a Element) {
        self.only_attributes(element, &["negate"]);
        match Network::parse_rule(element.text().trim()) {
            Ok(network) => {
                self.networks[which].0.0.push(network);
                self.networks[which].1 = Some(element);
            }
            Err(problem) => self.error(element, problem.to_string()),
        }
    }

    fn list(&mut self, element: &Element) {
        self.only_attributes(element, &["field", "lookup", "check_value"]);
        let Some(field) = element.attribute("field") else {
            self.error(element, "`list` without `field`");
            return;
        };
        let check = element.attribute("check_value").map(|value| OsMatch::compile(&value.value));
        let check = match check.transpose() {
            Ok(check) => check,
            Err(problem) => {
                self.error(element, format!("`check_value` does not compile: {problem}"));
                return;
            }
        };
        let lookup = element.attribute("lookup").map(|lookup| lookup.text().to_ascii_lowercase());
        let lookup = match (lookup.as_deref().unwrap_or("match_key"), check) {
            ("match_key", _) => Lookup::Key,
            ("not_match_key", _) => Lookup::NotKey,
            ("address_match_key", _) => Lookup::Address,
            ("not_address_match_key", _) => Lookup::NotAddress,
            ("match_key_value", Some(check)) => Lookup::KeyValue(check),
            ("address_match_key_value", Some(check)) => Lookup::AddressValue(check),
            ("match_key_value" | "address_match_key_value", None) => {
                self.error(element, "this `lookup` needs `check_value`");
                return;
            }
            (other, _) => {
                self.error(element, format!("unknown `lookup` `{other}`"));
                return;
            }
        };
        let Some(list) = self.context.lists.find(&element.text()) else {
            let message = format!("list `{}` is not loaded, so the rule is skipped", element.text());
            self.diagnostics.push(Diagnostic::warning(self.context.source, element.span, message));
            self.skipped = true;
            return;
        };
        let subject = Subject::of_list(&field.text());
        self.condition("list", 28, element, Test::List(ListTest { subject, lookup, list }));
    }

    fn option(&mut self, element: &Element) {
        self.only_attributes(element, &[]);
        let flags = &mut self.flags;
        let flag = match element.text().to_ascii_lowercase().as_str() {
            "alert_by_email" => &mut flags.email,
            "no_email_alert" => &mut flags.no_email,
            "log_alert" => &mut flags.log_alert,
            "no_log" => &mut flags.no_log,
            "no_ar" => &mut flags.no_ar,
            "no_full_log" => &mut flags.no_full_log,
            "no_counter" => &mut flags.no_counter,
            other => {
                let message = format!("unknown option `{other}`");
                self.error(element, message);
                return;
            }
        };
        *flag = true;
    }

    /// Compiles the joined texts; true when the rule is to be skipped.
    fn finish(&mut self) -> bool {
        for at in 0..self.texts.len() {
            let Text { name, last, .. } = self.texts[at];
            let bytes = std::mem::take(&mut self.texts[at].bytes);
            self.compile(name, &bytes, last);
            self.texts[at].bytes = bytes;
        }
        let fields = [("srcip", 11, StaticField::SrcIp), ("dstip", 12, StaticField::DstIp)];
        for (which, (name, rank, field)) in fields.into_iter().enumerate() {
            let (networks, last) = std::mem::take(&mut self.networks[which]);
            let Some(last) = last else { continue };
            match negate(last) {
                Some(negate) => {
                    self.condition(name, rank, last, Test::Network { field, networks, negate });
                }
                None => self.error(last, "`negate` is neither `yes` nor `no`"),
            }
        }
        self.skipped
    }

    fn compile(&mut self, name: &'static str, bytes: &[u8], last: &Element) {
        if let Some((rank, subject, kind)) = expression_element(name) {
            self.expression(name, rank, last, bytes, subject, kind);
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        let (rank, test) = match name {
            "decoded_as" if (self.context.known_decoder)(&text) => (0, Some(Test::DecodedAs((*text).into()))),
            "decoded_as" => (0, None),
            "compiled_rule" => (15, Builtin::from_name(&text).map(Test::Builtin)),
            "time" => (20, DayTime::parse(&text).map(Test::Time)),
            "weekday" => (21, Weekdays::parse(&text).map(Test::Weekday)),
            _ => return,
        };
        match test {
            Some(test) => self.condition(name, rank, last, test),
            None if name == "decoded_as" => self.error(last, format!("no decoder is named `{text}`")),
            None => self.error(last, format!("`{text}` is no valid `{name}`")),
        }
    }
}

fn negate(element: &Element) -> Option<bool> {
    let Some(value) = element.attribute("negate") else { return Some(false) };
    let value = value.text();
    if value.eq_ignore_ascii_case("yes") {
        Some(true)
    } else if value.eq_ignore_ascii_case("no") {
        Some(false)
    } else {
        None
    }
}

fn category(name: &str) -> Option<Category> {
    Some(match name.to_ascii_lowercase().as_str() {
        "firewall" => Category::Firewall,
        "ids" => Category::Ids,
        "syslog" => Category::Syslog,
        "web-log" => Category::WebLog,
        "squid" => Category::Squid,
        "windows" => Category::Windows,
        "ossec" => Category::Ossec,
        _ => return None,
    })
}

struct TextElement {
    name: &'static str,
    attributes: &'static [&'static str],
}

const fn expression(name: &'static str) -> TextElement {
    TextElement { name, attributes: &["type", "negate"] }
}

const fn plain(name: &'static str) -> TextElement {
    TextElement { name, attributes: &[] }
}

/// Elements whose repetitions are joined.
const TEXTS: &[TextElement] = &[
    expression("match"),
    expression("regex"),
    expression("id"),
    expression("url"),
    expression("status"),
    expression("data"),
    expression("extra_data"),
    expression("protocol"),
    expression("system_name"),
    expression("srcport"),
    expression("dstport"),
    expression("srcgeoip"),
    expression("dstgeoip"),
    expression("location"),
    expression("hostname"),
    expression("program_name"),
    expression("user"),
    expression("action"),
    plain("decoded_as"),
    plain("compiled_rule"),
    plain("time"),
    plain("weekday"),
    plain("if_sid"),
    plain("if_group"),
    plain("if_level"),
    plain("if_matched_sid"),
    plain("if_matched_group"),
    plain("if_matched_regex"),
    plain("description"),
    plain("group"),
    TextElement { name: "info", attributes: &["type"] },
    plain("cve"),
    plain("ignore"),
    plain("check_if_ignored"),
];

/// Names that `field` must not have.
const STATIC_NAMES: [&str; 17] = [
    "srcip",
    "dstip",
    "srcgeoip",
    "dstgeoip",
    "srcport",
    "dstport",
    "user",
    "srcuser",
    "dstuser",
    "url",
    "id",
    "data",
    "extra_data",
    "status",
    "protocol",
    "system_name",
    "action",
];

/// Place in the order of evaluation (analysis-rules 3), subject and default engine.
fn expression_element(name: &str) -> Option<(u8, Subject, Kind)> {
    use StaticField as F;
    Some(match name {
        "program_name" => (1, Subject::Program, Kind::OsMatch),
        "id" => (2, Subject::Static(F::Id), Kind::OsMatch),
        "system_name" => (3, Subject::Static(F::SystemName), Kind::OsMatch),
        "protocol" => (4, Subject::Static(F::Protocol), Kind::OsMatch),
        "match" => (5, Subject::Log, Kind::OsMatch),
        "regex" => (6, Subject::Log, Kind::OsRegex),
        "action" => (7, Subject::Static(F::Action), Kind::Exact),
        "url" => (8, Subject::Static(F::Url), Kind::OsMatch),
        "location" => (9, Subject::Location, Kind::OsMatch),
        "srcport" => (13, Subject::Static(F::SrcPort), Kind::OsMatch),
        "dstport" => (14, Subject::Static(F::DstPort), Kind::OsMatch),
        "user" => (16, Subject::DstOrSrcUser, Kind::OsMatch),
        "srcgeoip" => (17, Subject::Geo, Kind::OsMatch),
        "dstgeoip" => (18, Subject::Geo, Kind::OsMatch),
        "data" => (22, Subject::Static(F::Data), Kind::OsMatch),
        "extra_data" => (23, Subject::Static(F::ExtraData), Kind::OsMatch),
        "hostname" => (24, Subject::Hostname, Kind::OsMatch),
        "status" => (25, Subject::Static(F::Status), Kind::OsMatch),
        _ => return None,
    })
}

struct Placement {
    wanted: Wanted,
    skip: bool,
}

impl std::ops::Deref for Placement {
    type Target = Wanted;

    fn deref(&self) -> &Wanted {
        &self.wanted
    }
}

/// Reads the placement texts; a malformed number skips the rule instead of refusing the load.
fn wanted(context: &Context<'_>, texts: &[Text<'_>], diagnostics: &mut Vec<Diagnostic>) -> Placement {
    let mut placement = Placement { wanted: Wanted::default(), skip: false };
    let wanted = &mut placement.wanted;
    for given in texts {
        let text = String::from_utf8_lossy(&given.bytes);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Joined pieces may make numbers that no rule can have.
        let number = |text: &str| text.parse().unwrap_or(u32::MAX);
        let valid = match given.name {
            "if_sid" => {
                let ids: Vec<u32> = text.split([',', ' ']).filter(|id| !id.is_empty()).map(number).collect();
                let valid = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b' '));
                let valid = valid && !ids.is_empty();
                wanted.sids = Some(ids);
                valid
            }
            "if_level" => {
                wanted.level = digits.then(|| number(&text)).filter(|level| *level > 0);
                wanted.level.is_some()
            }
            "if_matched_sid" => {
                wanted.matched_sid = digits.then(|| number(&text));
                digits
            }
            "if_group" => {
                wanted.group = Some(text.into_owned());
                true
            }
            "if_matched_group" => {
                wanted.matched_group = Some(given.bytes.clone());
                true
            }
            "if_matched_regex" => {
                match OsRegex::compile(&given.bytes) {
                    Ok(regex) => wanted.matched_regex = Some(regex),
                    Err(problem) => diagnostics.push(Diagnostic::error(
                        context.source,
                        given.last.span,
                        format!("`if_matched_regex` does not compile: {problem}"),
                    )),
                }
                true
            }
            _ => true,
        };
        if !valid {
            let message = format!(
                "`{}` is no valid `{}`, so the rule is skipped",
                String::from_utf8_lossy(&given.bytes),
                given.name
            );
            diagnostics.push(Diagnostic::warning(context.source, given.last.span, message));
            placement.skip = true;
        }
    }
    placement
}
