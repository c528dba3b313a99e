//! `<remote>` and `<auth>`: how a server meets its agents.
//!
//! These sections differ most between releases: what is not known is a warning.

use std::net::IpAddr;
use std::time::Duration;

use tld_pattern::Network;
use tld_xml::Element;

use crate::reader::Reader;
use crate::settings::Remote;

/// Elements of `<remote>` that are read, or have no meaning here.
const REMOTE: &[&str] = &[
    "connection",
    "port",
    "protocol",
    "allowed-ips",
    "denied-ips",
    "local_ip",
    "ipv6",
    "queue_size",
    "rids_closing_time",
    "connection_overtake_time",
    "agents",
];

/// Reads one `<remote>`; `None` when it has an error.
pub(crate) fn read_remote(reader: &mut Reader<'_>, section: &Element) -> Option<Remote> {
    let errors = reader.errors();
    let mut syslog = None;
    let mut port = None;
    let mut protocols = Vec::new();
    let mut remote = Remote {
        syslog: false,
        port: 0,
        tcp: true,
        udp: false,
        allowed: Vec::new(),
        denied: Vec::new(),
        local_ip: None,
        ipv6: false,
        queue_size: 131_072,
        overtake: Duration::from_secs(60),
        allow_higher_versions: false,
    };
    for child in &section.children {
        match child.name.as_str() {
            "connection" => match reader.text(child).as_deref() {
                Some("secure") => syslog = Some(false),
                Some("syslog") => syslog = Some(true),
                _ => reader.invalid(child, "one of `secure`, `syslog`"),
            },
            "port" => {
                let mut number = 0;
                reader.port(child, &mut number);
                port = Some(number);
            }
            "protocol" => {
                protocols = reader.list(child).iter().map(|p| p.to_ascii_lowercase()).collect();
                if protocols.is_empty() || protocols.iter().any(|p| p != "tcp" && p != "udp") {
                    reader.invalid(child, "`tcp`, `udp`, or both with a comma");
                }
            }
            "allowed-ips" => remote.allowed.extend(networks(reader, child)),
            "denied-ips" => remote.denied.extend(networks(reader, child)),
            "local_ip" => match reader.text(child).and_then(|t| t.parse::<IpAddr>().ok()) {
                Some(address) => remote.local_ip = Some(address),
                None => reader.invalid(child, "an address of this host"),
            },
            "ipv6" => reader.yes_no(child, &mut remote.ipv6),
            "connection_overtake_time" => {
                let number = reader.number(child, 0, 3_600);
                remote.overtake = number.map_or(remote.overtake, Duration::from_secs);
            }
            "agents" => allow_higher(reader, child, &mut remote.allow_higher_versions),
            "queue_size" => {
                let number = reader.number(child, 1, 262_144);
                remote.queue_size = number.and_then(|n| u32::try_from(n).ok()).unwrap_or(remote.queue_size);
            }
            _ => reader.left_out(child, "remote", REMOTE),
        }
    }
    match syslog {
        Some(kind) => remote.syslog = kind,
        None => {
            let help = "add `<connection>secure</connection>` or `syslog`";
            reader.error(None, section.name_span, "`remote` without `connection`", help);
        }
    }
    remote.port = port.unwrap_or(if remote.syslog { 514 } else { 1514 });
    if !protocols.is_empty() {
        remote.tcp = protocols.iter().any(|p| p == "tcp");
        remote.udp = protocols.iter().any(|p| p == "udp");
    }
    if remote.syslog && remote.tcp && remote.udp {
        let message = "a syslog listener has one protocol, `tcp` is used";
        reader.warning(section.name_span, message, "add a second `remote` block for `udp`");
        remote.udp = false;
    }
    if remote.syslog && remote.allowed.is_empty() {
        let message = "this syslog listener hears nobody";
        reader.warning(section.name_span, message, "add `<allowed-ips>network</allowed-ips>`");
    }
    (reader.errors() == errors).then_some(remote)
}

/// Reads `<agents>` of `<remote>` and `<auth>`.
pub(crate) fn allow_higher(reader: &mut Reader<'_>, section: &Element, into: &mut bool) {
    for child in section.children.iter().filter(|child| child.name == "allow_higher_versions") {
        reader.yes_no(child, into);
    }
}

/// Networks between commas; each bad one is an error.
pub(crate) fn networks(reader: &mut Reader<'_>, child: &Element) -> Vec<Network> {
    let mut networks = Vec::new();
    for word in reader.list(child) {
        match word.parse::<Network>() {
            Ok(network) => networks.push(network),
            Err(error) => {
                reader.error(Some(1237), child.content_span, error.to_string(), "write `address/prefix`");
            }
        }
    }
    networks
}
