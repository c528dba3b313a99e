//! `<remote>`, `<client>` and `<auth>`: how server and agents meet.
//!
//! Options that have no effect here are passed over: these sections differ most between releases.

use std::net::IpAddr;
use std::time::Duration;

use tld_pattern::Network;
use tld_xml::Element;

use crate::reader::Reader;
use crate::settings::{Auth, Client, Enrollment, Remote, ServerAddress};

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
            "queue_size" => {
                let number = reader.number(child, 1, 262_144);
                remote.queue_size = number.and_then(|n| u32::try_from(n).ok()).unwrap_or(remote.queue_size);
            }
            _ => {}
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

/// Reads one `<client>`; servers grow, single values replace earlier ones.
pub(crate) fn read_client(reader: &mut Reader<'_>, section: &Element, client: &mut Client) {
    for child in &section.children {
        match child.name.as_str() {
            "server" => client.servers.extend(server(reader, child)),
            "notify_time" => reader.duration(child, &mut client.notify_time),
            "time-reconnect" => reader.duration(child, &mut client.time_reconnect),
            "config-profile" => client.config_profile = reader.text(child),
            "auto_restart" => reader.yes_no(child, &mut client.auto_restart),
            "enrollment" => enrollment(reader, child, &mut client.enrollment),
            _ => {}
        }
    }
    if client.notify_time.is_zero() {
        client.notify_time = Duration::from_secs(1);
    }
    if client.time_reconnect <= client.notify_time {
        client.time_reconnect = client.notify_time.saturating_mul(3);
    }
}

fn server(reader: &mut Reader<'_>, element: &Element) -> Option<ServerAddress> {
    let mut server = ServerAddress {
        address: String::new(),
        port: 1514,
        udp: false,
        max_retries: 5,
        retry_interval: Duration::from_secs(10),
    };
    for child in &element.children {
        match child.name.as_str() {
            "address" => server.address = reader.text(child).unwrap_or_default(),
            "port" => reader.port(child, &mut server.port),
            "protocol" => match reader.text(child).map(|t| t.to_ascii_lowercase()).as_deref() {
                Some("tcp") => server.udp = false,
                Some("udp") => server.udp = true,
                _ => reader.invalid(child, "`tcp` or `udp`"),
            },
            "max_retries" => {
                let number = reader.number(child, 1, u32::MAX.into());
                server.max_retries = number.and_then(|n| u32::try_from(n).ok()).unwrap_or(5);
            }
            "retry_interval" => reader.duration(child, &mut server.retry_interval),
            _ => {}
        }
    }
    if server.address.is_empty() {
        let help = "add `<address>name or address</address>`";
        reader.error(None, element.name_span, "`server` without `address`", help);
        return None;
    }
    Some(server)
}

fn enrollment(reader: &mut Reader<'_>, element: &Element, into: &mut Enrollment) {
    for child in &element.children {
        match child.name.as_str() {
            "enabled" => reader.yes_no(child, &mut into.enabled),
            "manager_address" => into.manager_address = reader.text(child),
            "port" => reader.port(child, &mut into.port),
            "agent_name" => into.agent_name = reader.text(child),
            "groups" => into.groups = reader.text(child),
            "authorization_pass_path" => {
                into.authorization_pass_path = reader.text(child).unwrap_or_default();
            }
            "server_ca_path" => into.server_ca_path = reader.text(child),
            "delay_after_enrollment" => reader.duration(child, &mut into.delay_after_enrollment),
            _ => {}
        }
    }
}

/// Reads one `<auth>`.
pub(crate) fn read_auth(reader: &mut Reader<'_>, section: &Element, auth: &mut Auth) {
    for child in &section.children {
        match child.name.as_str() {
            "disabled" => reader.yes_no(child, &mut auth.disabled),
            "port" => reader.port(child, &mut auth.port),
            "use_password" => reader.yes_no(child, &mut auth.use_password),
            "use_source_ip" => reader.yes_no(child, &mut auth.use_source_ip),
            _ => {}
        }
    }
}
