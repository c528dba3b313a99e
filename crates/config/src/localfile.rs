//! `<localfile>`: one source of log lines.
//!
//! Invariant: every block has a format, and what that format reads (a file, a command or the journal).

use std::sync::Arc;
use std::time::Duration;

use tld_pattern::{Expression, Kind};
use tld_xml::{Element, Span};

use crate::reader::Reader;
use crate::settings::Role;

/// One `<localfile>`.
#[derive(Debug)]
pub struct LocalFile {
    /// Path, glob, date pattern or channel as written; a relative path starts at the home.
    pub location: Option<String>,
    /// Format as written.
    pub log_format: String,
    /// Command line of the two command formats.
    pub command: Option<String>,
    /// Name that stands for the command.
    pub alias: Option<String>,
    /// Time between two runs of the command.
    pub frequency: Duration,
    /// At start begin at the end of the file.
    pub only_future_events: bool,
    /// Globs of files that are left out.
    pub exclude: Vec<String>,
    /// Leave out files that are no text.
    pub ignore_binaries: bool,
    /// Lines that match one of these are dropped.
    pub ignore: Vec<Expression>,
    /// Lines that do not match all of these are dropped.
    pub restrict: Vec<Expression>,
    /// Bytes of backlog that are read after a pause.
    pub max_size: u64,
    /// Files not changed for that long are closed.
    pub age: Option<Duration>,
    /// Labels of format `json`.
    pub labels: Vec<(String, String)>,
    /// How lines make messages, for format `multi-line-regex`.
    pub multiline: Option<Multiline>,
    /// Filters of the journal; all must hold.
    pub filters: Vec<JournalFilter>,
    /// Names of the outputs.
    pub target: Vec<String>,
    /// Patterns of what is sent: limited to an output, or for all.
    pub out_format: Vec<(Option<String>, String)>,
    /// Query of a Windows channel.
    pub query: Option<String>,
    /// Pause before a Windows channel is opened again.
    pub reconnect_time: Duration,
    /// File of the block.
    pub file: Arc<str>,
    /// Line of the block.
    pub line: u32,
}

/// `<multiline_regex>`.
#[derive(Debug)]
pub struct Multiline {
    /// What marks the edge of a message.
    pub expression: Expression,
    /// Which edge that is.
    pub edge: MultilineEdge,
    /// What newlines inside become; none = they stay.
    pub replace: Option<&'static str>,
    /// An open message is sent after that long without data.
    pub timeout: Duration,
}

/// Which edge of a message the expression marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultilineEdge {
    /// Its first line matches.
    Start,
    /// Its last line matches.
    End,
    /// The whole text matches.
    All,
}

/// One `<filter>`.
#[derive(Debug)]
pub struct JournalFilter {
    /// Field of the entry.
    pub field: String,
    /// What its value must match.
    pub expression: Expression,
    /// Entries without the field pass.
    pub ignore_if_missing: bool,
}

const CHILDREN: &[&str] = &[
    "location",
    "log_format",
    "command",
    "alias",
    "frequency",
    "only-future-events",
    "target",
    "out_format",
    "label",
    "age",
    "exclude",
    "ignore_binaries",
    "ignore",
    "restrict",
    "multiline_regex",
    "filter",
    "query",
    "reconnect_time",
];

/// These may be written in any case.
const ANY_CASE: &[&str] =
    &["log_format", "alias", "exclude", "ignore_binaries", "ignore", "restrict", "multiline_regex", "filter"];

const FORMATS: &[&str] = &[
    "syslog",
    "generic",
    "json",
    "snort-full",
    "snort-fast",
    "apache",
    "iis",
    "squid",
    "nmapg",
    "mysql_log",
    "mssql_log",
    "postgresql_log",
    "ossecalert",
    "djb-multilog",
    "syslog-pipe",
    "command",
    "full_command",
    "audit",
    "multi-line-regex",
    "eventlog",
    "eventchannel",
    "macos",
    "journald",
];

const MAX_SIZE: u64 = 10 * 1024 * 1024;
const MAX_SIZE_LIMIT: u64 = 2 * 1024 * 1024 * 1024;

/// Reads one block; `None` when it has an error or reads nothing.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    block: &Element,
    role: Role,
    commands: bool,
) -> Option<LocalFile> {
    let errors = reader.errors();
    let mut log = LocalFile {
        location: None,
        log_format: String::new(),
        command: None,
        alias: None,
        frequency: Duration::from_secs(360),
        only_future_events: true,
        exclude: Vec::new(),
        ignore_binaries: false,
        ignore: Vec::new(),
        restrict: Vec::new(),
        max_size: MAX_SIZE,
        age: None,
        labels: Vec::new(),
        multiline: None,
        filters: Vec::new(),
        target: Vec::new(),
        out_format: Vec::new(),
        query: None,
        reconnect_time: Duration::from_secs(5),
        file: reader.file(),
        line: reader.line(block),
    };
    for child in &block.children {
        read_child(reader, &mut log, child, role);
    }
    check(reader, block, &mut log);
    if !commands && log.command.is_some() {
        reader.warning(
            block.name_span,
            "a command in a pushed configuration is not run",
            "set it in this host's own ossec.conf, or `logcollector.remote_commands=1` in its local_internal_options.conf",
        );
        return None;
    }
    (reader.errors() == errors).then_some(log)
}

fn read_child(reader: &mut Reader<'_>, log: &mut LocalFile, child: &Element, role: Role) {
    let lower = child.name.to_ascii_lowercase();
    let name = if ANY_CASE.contains(&lower.as_str()) { lower.as_str() } else { child.name.as_str() };
    match name {
        "location" => log.location = reader.text(child),
        "log_format" => log.log_format = reader.text(child).unwrap_or_default(),
        "command" => log.command = reader.text(child),
        "alias" => log.alias = reader.text(child),
        "frequency" => frequency(reader, child, &mut log.frequency),
        "only-future-events" => {
            reader.yes_no(child, &mut log.only_future_events);
            max_size(reader, child, &mut log.max_size);
        }
        "target" => log.target = reader.list(child),
        "out_format" => {
            let target = child.attribute("target").map(|a| a.text().into_owned());
            log.out_format.push((target, child.text().into_owned()));
        }
        "label" => {
            if let Some(label) = reader.label(child) {
                log.labels.push((label.key, label.value));
            }
        }
        "age" => {
            let mut age = Duration::ZERO;
            reader.duration(child, &mut age);
            log.age = Some(age).filter(|a| !a.is_zero());
        }
        "exclude" => log.exclude.extend(reader.text(child)),
        "ignore_binaries" => reader.yes_no(child, &mut log.ignore_binaries),
        "ignore" => log.ignore.extend(expression(reader, child)),
        "restrict" => log.restrict.extend(expression(reader, child)),
        "multiline_regex" => log.multiline = multiline(reader, child),
        "filter" => log.filters.extend(filter(reader, child)),
        "query" => log.query = reader.text(child),
        "reconnect_time" => reader.duration(child, &mut log.reconnect_time),
        // An agent may get blocks of newer managers; one unknown word must not end its log collection.
        _ if role == Role::Agent => {
            reader.warning(child.name_span, "not known here, ignored", "see the list of localfile options");
        }
        _ => reader.unknown(child, "localfile", CHILDREN),
    }
}

fn check(reader: &mut Reader<'_>, block: &Element, log: &mut LocalFile) {
    let place =
        block.children.iter().find(|c| c.is("log_format")).map_or(block.name_span, |c| c.content_span);
    if log.log_format.is_empty() {
        reader.error(
            None,
            block.name_span,
            "`localfile` without `log_format`",
            "most files are `syslog` or `json`",
        );
        return;
    }
    let lines = log.log_format.strip_prefix("multi-line:").map(str::trim);
    let known = match lines {
        Some(count) => count.parse::<u16>().is_ok_and(|n| n > 0),
        None => FORMATS.contains(&log.log_format.as_str()),
    };
    if !known {
        let message = format!("unknown log format `{}`", log.log_format);
        let help = crate::suggest::help(&log.log_format, FORMATS);
        reader.error(Some(1235), place, message, help);
        return;
    }
    match log.log_format.as_str() {
        "command" | "full_command" if log.command.is_none() => {
            reader.error(
                None,
                block.name_span,
                "this format needs a `command`",
                "add `<command>…</command>`",
            );
        }
        format @ ("journald" | "macos") => {
            if log.location.as_deref().is_some_and(|l| l != format) {
                let message = format!("the location of this format is always `{format}`");
                reader.warning(block.name_span, message, "leave `location` out");
            }
            log.location = Some(format.to_owned());
        }
        "multi-line-regex" if log.multiline.is_none() => {
            let help = "add `<multiline_regex>…</multiline_regex>`";
            reader.error(None, block.name_span, "this format needs a `multiline_regex`", help);
        }
        _ => {}
    }
    let runs = matches!(log.log_format.as_str(), "command" | "full_command");
    if log.location.is_none() && !runs {
        reader.error(
            None,
            block.name_span,
            "`localfile` without `location`",
            "add `<location>/path</location>`",
        );
    }
}

fn frequency(reader: &mut Reader<'_>, child: &Element, into: &mut Duration) {
    match reader.text(child).as_deref() {
        Some("hourly") => *into = Duration::from_secs(3600),
        Some("daily") => *into = Duration::from_secs(86_400),
        _ => {
            if let Some(seconds) = reader.number(child, 1, u64::from(u32::MAX)) {
                *into = Duration::from_secs(seconds);
            }
        }
    }
}

fn max_size(reader: &mut Reader<'_>, child: &Element, into: &mut u64) {
    let Some(attribute) = child.attribute("max-size") else { return };
    match crate::reader::parse_size(attribute.text().trim()) {
        Some(size) if size > 0 => *into = size.min(MAX_SIZE_LIMIT),
        _ => {
            let message = format!("`{}` is not a size", attribute.text());
            reader.error(Some(1235), attribute.value_span, message, "write it as `10MB`");
        }
    }
}

fn expression(reader: &mut Reader<'_>, child: &Element) -> Option<Expression> {
    let kind = match child.attribute("type") {
        None => Kind::Pcre2,
        Some(attribute) => {
            let Some(kind) = Kind::from_name(attribute.text().trim()) else {
                let message = format!("unknown expression type `{}`", attribute.text());
                reader.error(
                    Some(1235),
                    attribute.value_span,
                    message,
                    "one of `pcre2`, `osregex`, `osmatch`",
                );
                return None;
            };
            kind
        }
    };
    compile(reader, kind, &child.content, child.content_span)
}

fn compile(reader: &mut Reader<'_>, kind: Kind, pattern: &[u8], span: Span) -> Option<Expression> {
    if pattern.is_empty() {
        reader.error(Some(1235), span, "empty expression", "remove the element or give it a pattern");
        return None;
    }
    match Expression::compile(kind, pattern) {
        Ok(expression) => Some(expression),
        Err(error) => {
            reader.error(Some(1235), span, error.to_string(), "the expression cannot be compiled");
            None
        }
    }
}

fn multiline(reader: &mut Reader<'_>, child: &Element) -> Option<Multiline> {
    let expression = compile(reader, Kind::Pcre2, &child.content, child.content_span)?;
    let edge = match reader.attribute(child, "match").as_deref() {
        None | Some("start") => MultilineEdge::Start,
        Some("end") => MultilineEdge::End,
        Some("all") => MultilineEdge::All,
        Some(_) => return reader.bad_attribute(child, "match", "one of `start`, `end`, `all`"),
    };
    let replace = match reader.attribute(child, "replace").as_deref() {
        None | Some("no-replace") => None,
        Some("none") => Some(""),
        Some("wspace") => Some(" "),
        Some("tab") => Some("\t"),
        Some(_) => {
            return reader.bad_attribute(child, "replace", "one of `no-replace`, `none`, `wspace`, `tab`");
        }
    };
    let timeout = match reader.attribute(child, "timeout") {
        None => 5,
        Some(text) => match text.parse::<u64>() {
            Ok(seconds @ 1..=120) => seconds,
            _ => return reader.bad_attribute(child, "timeout", "seconds from 1 to 120"),
        },
    };
    Some(Multiline { expression, edge, replace, timeout: Duration::from_secs(timeout) })
}

fn filter(reader: &mut Reader<'_>, child: &Element) -> Option<JournalFilter> {
    let Some(field) = reader.attribute(child, "field").filter(|f| !f.is_empty()) else {
        let help = "write `<filter field=\"_SYSTEMD_UNIT\">…</filter>`";
        reader.error(Some(1235), child.name_span, "`filter` without a `field` attribute", help);
        return None;
    };
    let ignore_if_missing = match reader.attribute(child, "ignore_if_missing").as_deref() {
        None | Some("no") => false,
        Some("yes") => true,
        Some(_) => return reader.bad_attribute(child, "ignore_if_missing", "`yes` or `no`"),
    };
    let expression = compile(reader, Kind::Pcre2, &child.content, child.content_span)?;
    Some(JournalFilter { field, expression, ignore_if_missing })
}
