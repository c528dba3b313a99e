//! Files of the operator and messages between programs. Invariant checked: places lie in the text, what was read can be written.

use tld_config::{InternalOptions, Role};
use tld_model::{ExecMessage, Order, Timestamp, Zone};
use tld_xml::{Diagnostic, Element, Source, Span};

pub(crate) const XML_WORDS: &[&str] = &[
    "<a>",
    "</a>",
    "<a/>",
    "<!--",
    "-->",
    "<var name=\"v\">",
    "</var>",
    "$v",
    "$",
    "<!",
    "<?",
    "\\<",
    "b=\"",
    "='",
    "&lt;",
    "<a b=\"c\">",
];
pub(crate) const CONFIG_WORDS: &[&str] = &[
    "<ossec_config>",
    "</ossec_config>",
    "<command>",
    "</command>",
    "<active-response>",
    "<location>",
    "<localfile>",
    "<log_format>",
    "multi-line:3",
    "<white_list>",
    "<timeout>",
    "<rules_id>",
    "<repeated_offenders>",
    "10,20,30",
    "<disabled>yes</disabled>",
    "<client>",
    "<server>",
    "<remote>",
    "<labels>",
    "<ruleset>",
    "<include>",
    "4294967296",
    "-1",
    "99999999999999999999",
    "/etc/../..",
];
pub(crate) const OPTION_WORDS: &[&str] = &[
    "=",
    "#",
    "analysisd.debug",
    "execd.request_timeout",
    "logcollector.max_lines",
    "4294967296",
    "-1",
    "\r\n",
];
pub(crate) const TIME_WORDS: &[&str] = &[
    "Feb 29 ",
    "Dec 31 23:59:60",
    "9999-12-31T",
    "0000-00-00",
    "24:00:00",
    "Z",
    "+14:00",
    "-99:99",
    ".999999999999",
    "T",
];

/// The XML dialect.
pub fn xml(data: &[u8]) {
    let source = Source::new("fuzz.xml", data);
    match tld_xml::parse(&source) {
        Ok(roots) => roots.iter().for_each(|root| element(&source, root)),
        Err(error) => {
            assert!(error.is_error());
            shown(&source, &error);
        }
    }
}

fn element(source: &Source, one: &Element) {
    inside(source, one.span);
    inside(source, one.name_span);
    inside(source, one.content_span);
    for attribute in &one.attributes {
        inside(source, attribute.span);
        inside(source, attribute.value_span);
        assert!(one.attribute(&attribute.name).is_some());
    }
    assert!(one.children.is_empty() || one.content.is_empty());
    one.children.iter().for_each(|child| element(source, child));
}

fn inside(source: &Source, span: Span) {
    assert!(span.start <= span.end && span.end as usize <= source.text.len(), "a span outside the text");
    assert!(source.line_of(span) >= 1);
}

/// A diagnostic can be told in little room, on a terminal too.
pub(crate) fn shown(source: &Source, diagnostic: &Diagnostic) {
    let lines = source.text.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!(diagnostic.line as usize <= lines, "a line outside the text");
    for colour in [false, true] {
        let text = diagnostic.render(colour);
        assert!(text.len() < 32 << 10, "a diagnostic of {} bytes", text.len());
        assert!(!text.bytes().any(|byte| byte == 0 || byte == b'\r'), "control bytes reach the terminal");
        assert!(colour || !text.contains('\x1b'), "an escape sequence reaches the terminal");
    }
}

/// `ossec.conf` in every role.
pub fn config(data: &[u8]) {
    let source = Source::new("ossec.conf", data);
    for role in [Role::Manager, Role::Agent, Role::Standalone] {
        let loaded = tld_config::parse(&source, role);
        loaded.diagnostics.iter().for_each(|one| shown(&source, one));
        let doubled = tld_config::parse_all(&[source.clone(), source.clone()], role);
        assert!(doubled.has_errors() || !loaded.has_errors(), "an error went away by reading on");
    }
}

/// `internal_options.conf`.
pub fn options(data: &[u8]) {
    let source = Source::new("internal_options.conf", data);
    let (mut options, mut diagnostics) = (InternalOptions::default(), Vec::new());
    options.apply(&source, &mut diagnostics);
    diagnostics.iter().for_each(|one| shown(&source, one));
    assert!(options.value("execd.request_timeout").is_some_and(|value| (1..=3600).contains(&value)));
}

/// The message to a responder or script, and our own order.
pub fn message(data: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<ExecMessage>(data) {
        let line = message.to_line().expect("what was read can be written");
        let again: ExecMessage = serde_json::from_str(&line).expect("what was written can be read");
        assert_eq!(again.to_line().ok(), Some(line));
        assert_eq!(again.parameters.alert.get(), message.parameters.alert.get(), "the alert is verbatim");
    }
    if let Ok(order) = serde_json::from_slice::<Order>(data) {
        let text = serde_json::to_string(&order).expect("what was read can be written");
        let again: Order = serde_json::from_str(&text).expect("what was written can be read");
        assert_eq!(serde_json::to_string(&again).ok(), Some(text));
    }
}

/// The stamp that a line begins with.
pub fn logtime(data: &[u8]) {
    let latest = Timestamp::from_secs(1_795_381_200);
    for zone in [Zone::utc(), Zone::fixed(-12 * 3600), Zone::fixed(14 * 3600)] {
        tld_server::logtime::LogTime::new(zone.clone(), latest).read(data);
    }
}
