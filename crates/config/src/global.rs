//! `<global>`, `<alerts>`, `<cluster>` and `<rule_test>`.
//!
//! Invariant: an allow-list entry either means what it says or is refused; none is quietly something else.

use tld_pattern::{Network, OsMatch};
use tld_xml::Element;

use crate::reader::{Reader, short};
use crate::settings::{AlertLevels, AllowEntry, Global, RuleTest};

const GLOBAL: &[&str] = &[
    "white_list",
    "memory_size",
    "jsonout_output",
    "alerts_log",
    "logall",
    "logall_json",
    "rotate_interval",
    "max_output_size",
    "agents_disconnection_time",
    "agents_disconnection_alert_time",
    "stats",
    "host_information",
    "custom_alert_output",
    // Known to the contract, without effect here.
    "integrity_checking",
    "rootkit_detection",
    "email_notification",
    "email_to",
    "email_from",
    "email_reply_to",
    "email_idsname",
    "email_maxperhour",
    "email_log_source",
    "smtp_server",
    "helo_server",
    "forward_to",
    "update_check",
    "limits",
    "queue_size",
    "prelude_output",
    "prelude_profile",
    "prelude_log_level",
    "zeromq_output",
    "zeromq_uri",
    "zeromq_server_cert",
    "zeromq_client_cert",
    "picviz_output",
    "picviz_socket",
    "use_geoip",
    "geoip_db_path",
];

/// Longest form of alerts.log.
const LONGEST_FORM: usize = 4096;

const ALERTS: &[&str] = &["log_alert_level", "email_alert_level", "use_geoip"];

/// Reads one `<global>`; single values replace earlier ones, the allow list grows.
pub(crate) fn read(reader: &mut Reader<'_>, section: &Element, global: &mut Global) {
    for child in &section.children {
        match child.name.as_str() {
            "white_list" => global.white_list.extend(allow_entry(reader, child)),
            "memory_size" => {
                let number = reader.number(child, 16, 1_000_000);
                if let Some(size) = number.and_then(|n| u32::try_from(n).ok()) {
                    global.memory_size = size;
                }
            }
            "jsonout_output" => reader.yes_no(child, &mut global.jsonout_output),
            "alerts_log" => reader.yes_no(child, &mut global.alerts_log),
            "logall" => reader.yes_no(child, &mut global.logall),
            "logall_json" => reader.yes_no(child, &mut global.logall_json),
            "rotate_interval" => reader.duration(child, &mut global.rotate_interval),
            "max_output_size" => reader.size(child, &mut global.max_output_size),
            "agents_disconnection_time" => reader.duration(child, &mut global.agents_disconnection_time),
            "agents_disconnection_alert_time" => {
                reader.duration(child, &mut global.agents_disconnection_alert_time);
            }
            "stats" => reader.level(child, 0, 16, &mut global.stats),
            "host_information" => reader.level(child, 0, 16, &mut global.host_information),
            "custom_alert_output" => match reader.text(child) {
                Some(form) if form.len() <= LONGEST_FORM => global.custom_alert_output = Some(form),
                _ => reader.invalid(child, "a line with tokens such as `$TIMESTAMP.$FTELL $RULEID $FULLLOG`"),
            },
            "use_geoip" | "geoip_db_path" => geoip(reader, child),
            name if GLOBAL.contains(&name) => {}
            _ => reader.unknown(child, "global", GLOBAL),
        }
    }
}

/// Reads one `<alerts>`.
pub(crate) fn read_alerts(reader: &mut Reader<'_>, section: &Element, alerts: &mut AlertLevels) {
    for child in &section.children {
        match child.name.as_str() {
            "log_alert_level" => reader.level(child, 1, 16, &mut alerts.log_alert_level),
            "email_alert_level" => reader.level(child, 1, 16, &mut alerts.email_alert_level),
            "use_geoip" => geoip(reader, child),
            _ => reader.unknown(child, "alerts", ALERTS),
        }
    }
}

/// Places of addresses are not looked up here; rules with `srcgeoip` would wait for ever without a word.
fn geoip(reader: &mut Reader<'_>, element: &Element) {
    if reader.text(element).is_some_and(|text| text != "no") {
        let message =
            format!("`{}` has no effect: addresses are not looked up in a GeoIP database", element.name);
        let help = "rules that test `srcgeoip` or `dstgeoip` never match; remove the element to silence this";
        reader.warning(element.name_span, message, help);
    }
}

const RULE_TEST: &[&str] = &["enabled", "threads", "max_sessions", "session_timeout"];

/// Reads one `<rule_test>`.
pub(crate) fn read_rule_test(reader: &mut Reader<'_>, section: &Element, into: &mut RuleTest) {
    for child in &section.children {
        match child.name.as_str() {
            "enabled" => reader.yes_no(child, &mut into.enabled),
            "threads" if reader.text(child).as_deref() == Some("auto") => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                into.threads = u8::try_from(processors).unwrap_or(128).min(128);
            }
            "threads" => reader.level(child, 1, 128, &mut into.threads),
            "max_sessions" => {
                let number = reader.number(child, 1, 500).and_then(|n| u16::try_from(n).ok());
                into.max_sessions = number.unwrap_or(into.max_sessions);
            }
            "session_timeout" => reader.duration(child, &mut into.session_timeout),
            _ => reader.unknown(child, "rule_test", RULE_TEST),
        }
    }
}

/// Reads the names of `<cluster>`; alerts carry them only where the cluster is on.
pub(crate) fn read_cluster(reader: &mut Reader<'_>, section: &Element, global: &mut Global) {
    let text =
        |name: &str| section.children.iter().rev().find(|c| c.name == name).and_then(|c| reader.text(c));
    if text("disabled").as_deref() == Some("yes") {
        return;
    }
    global.node_name = text("node_name").or_else(|| Some("node01".to_owned()));
    global.cluster_name = text("name").or_else(|| Some("wazuh".to_owned()));
}

fn allow_entry(reader: &mut Reader<'_>, element: &Element) -> Option<AllowEntry> {
    let Some(text) = reader.text(element) else {
        reader.warning(
            element.name_span,
            "empty `white_list`, ignored",
            "give an address, a network or a name",
        );
        return None;
    };
    let span = element.content_span;
    if text.starts_with('!') {
        let message = format!("`{}` is left out: an allow list has no exceptions", short(&text));
        reader.warning(span, message, "remove the entry, or list the networks around the address");
        return None;
    }
    if text == "any" {
        reader.warning(span, "`any` is a host name here", "every address is `0.0.0.0/0` and `::/0`");
    } else {
        match text.parse::<Network>() {
            Ok(network) => return Some(AllowEntry::Network(network)),
            Err(error) if looks_like_address(&text) => {
                reader.error(
                    Some(1237),
                    span,
                    error.to_string(),
                    "write an address, `address/prefix` or `address/mask`",
                );
                return None;
            }
            Err(_) => {}
        }
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b"^$|.:/".contains(&b)) {
        let message = format!("`{}` is compared with host names only, never with addresses", short(&text));
        reader.warning(span, message, "write a part of the address space as a network, such as `10.0.0.0/8`");
    }
    match OsMatch::compile(text.as_bytes()) {
        Ok(pattern) => Some(AllowEntry::Host { text, pattern }),
        Err(error) => {
            reader.error(Some(1235), span, error.to_string(), "the pattern cannot be compiled");
            None
        }
    }
}

/// Four dotted numbers or hexadecimal groups with colons, with or without a suffix: meant as an address.
fn looks_like_address(text: &str) -> bool {
    let host = text.split_once('/').map_or(text, |(host, _)| host);
    let dotted = host.split('.').count() == 4
        && host.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let colons = host.bytes().filter(|b| *b == b':').count();
    let groups = colons >= 2 && host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
    dotted || groups
}
