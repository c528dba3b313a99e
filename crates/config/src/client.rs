//! `<client>` and `<client_buffer>`: how an agent finds its managers, gets a key, and how fast it speaks.
//!
//! Options that have no effect here are passed over: these sections differ most between releases.

use std::time::Duration;

use tld_xml::Element;

use crate::reader::Reader;

/// `<client>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Managers in the order they are tried.
    pub servers: Vec<ServerAddress>,
    /// Time between keep-alives.
    pub notify_time: Duration,
    /// Silence of the manager after which a new connection is made.
    pub time_reconnect: Duration,
    /// A connection is given up after this time, however well it works; none = never.
    pub force_reconnect_interval: Option<Duration>,
    /// Profile text for `agent_config` selection.
    pub config_profile: Option<String>,
    /// Restart when the manager pushed another configuration.
    pub auto_restart: bool,
    /// Messages are sealed with the legacy cipher.
    pub blowfish: bool,
    /// The version told to managers, in place of the newest that they accept.
    pub report_version: Option<String>,
    /// `<enrollment>`.
    pub enrollment: Enrollment,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            notify_time: Duration::from_secs(20),
            time_reconnect: Duration::from_secs(60),
            force_reconnect_interval: None,
            config_profile: None,
            auto_restart: true,
            blowfish: false,
            report_version: None,
            enrollment: Enrollment::default(),
        }
    }
}

/// One `<server>` of `<client>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Name or address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Over UDP instead of TCP.
    pub udp: bool,
    /// Attempts before the next server is tried.
    pub max_retries: u32,
    /// Time between attempts.
    pub retry_interval: Duration,
}

/// `<enrollment>` of `<client>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Ask for a key when there is none.
    pub enabled: bool,
    /// Where to ask; none = the servers.
    pub manager_address: Option<String>,
    /// Port of the enrolment service.
    pub port: u16,
    /// Name to ask for; none = the host's name.
    pub agent_name: Option<String>,
    /// Groups to ask for, as written.
    pub groups: Option<String>,
    /// Address to be registered with.
    pub agent_address: Option<String>,
    /// Be registered with the address that the manager sees.
    pub use_source_ip: bool,
    /// File with the password, relative to the home.
    pub authorization_pass_path: String,
    /// Certificate of the authority that signed the manager's.
    pub server_ca_path: Option<String>,
    /// Our own certificate, where the manager wants one.
    pub agent_certificate_path: Option<String>,
    /// Its key.
    pub agent_key_path: Option<String>,
    /// Pause before the first connection with a new key.
    pub delay_after_enrollment: Duration,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self {
            enabled: true,
            manager_address: None,
            port: 1515,
            agent_name: None,
            groups: None,
            agent_address: None,
            use_source_ip: false,
            authorization_pass_path: "etc/authd.pass".to_owned(),
            server_ca_path: None,
            agent_certificate_path: None,
            agent_key_path: None,
            delay_after_enrollment: Duration::from_secs(20),
        }
    }
}

/// `<client_buffer>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientBuffer {
    /// Whether events wait in the buffer whose fill is reported.
    pub disabled: bool,
    /// Events that may wait before the buffer counts as full.
    pub queue_size: u32,
    /// Events sent in a second; the shipped 500 means no limit here.
    pub events_per_second: u32,
    /// Bytes kept on disk for a manager that is away or slow.
    pub spool_size: u64,
}

/// The value that is shipped, which therefore says nothing about what the operator wants.
const SHIPPED_RATE: u32 = 500;

impl Default for ClientBuffer {
    fn default() -> Self {
        Self {
            disabled: false,
            queue_size: 5000,
            events_per_second: SHIPPED_RATE,
            spool_size: 512 * 1024 * 1024,
        }
    }
}

impl ClientBuffer {
    /// Events in a second that the operator wants to see at most; none = as many as there are.
    pub fn rate(&self) -> Option<u32> {
        (self.events_per_second != SHIPPED_RATE).then_some(self.events_per_second)
    }
}

const CLIENT: &[&str] = &[
    "server",
    "notify_time",
    "time-reconnect",
    "force_reconnect_interval",
    "ip_update_interval",
    "config-profile",
    "auto_restart",
    "crypto_method",
    "report_version",
    "enrollment",
];
const SERVER: &[&str] = &["address", "port", "protocol", "max_retries", "retry_interval", "interface_index"];
const ENROLLMENT: &[&str] = &[
    "enabled",
    "manager_address",
    "port",
    "interface_index",
    "agent_name",
    "groups",
    "agent_address",
    "use_source_ip",
    "ssl_cipher",
    "auto_method",
    "authorization_pass_path",
    "server_ca_path",
    "agent_certificate_path",
    "agent_key_path",
    "delay_after_enrollment",
];
const BUFFER: &[&str] = &["disabled", "queue_size", "events_per_second", "spool_size"];

/// Reads one `<client>`; servers grow, single values replace earlier ones.
pub(crate) fn read(reader: &mut Reader<'_>, section: &Element, client: &mut Client) {
    for child in &section.children {
        match child.name.as_str() {
            "server" => client.servers.extend(server(reader, child)),
            "notify_time" => reader.duration(child, &mut client.notify_time),
            "time-reconnect" => reader.duration(child, &mut client.time_reconnect),
            "force_reconnect_interval" => {
                let mut interval = Duration::ZERO;
                reader.duration(child, &mut interval);
                client.force_reconnect_interval = Some(interval).filter(|interval| !interval.is_zero());
            }
            "config-profile" => client.config_profile = reader.text(child),
            "auto_restart" => reader.yes_no(child, &mut client.auto_restart),
            "crypto_method" => match reader.text(child).map(|text| text.to_ascii_lowercase()).as_deref() {
                Some("aes") => client.blowfish = false,
                Some("blowfish") => client.blowfish = true,
                _ => reader.invalid(child, "`aes` or `blowfish`"),
            },
            "report_version" => client.report_version = reader.text(child),
            "enrollment" => enrollment(reader, child, &mut client.enrollment),
            _ => reader.left_out(child, "client", CLIENT),
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
            _ => reader.left_out(child, "server", SERVER),
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
            "agent_address" => into.agent_address = reader.text(child),
            "use_source_ip" => reader.yes_no(child, &mut into.use_source_ip),
            "authorization_pass_path" => {
                into.authorization_pass_path = reader.text(child).unwrap_or_default();
            }
            "server_ca_path" => into.server_ca_path = reader.text(child),
            "agent_certificate_path" => into.agent_certificate_path = reader.text(child),
            "agent_key_path" => into.agent_key_path = reader.text(child),
            "delay_after_enrollment" => reader.duration(child, &mut into.delay_after_enrollment),
            _ => reader.left_out(child, "enrollment", ENROLLMENT),
        }
    }
    if into.agent_address.is_some() && into.use_source_ip {
        let help = "take one of the two out";
        reader.error(None, element.name_span, "`agent_address` and `use_source_ip` exclude each other", help);
    }
}

/// Reads one `<client_buffer>`.
pub(crate) fn read_buffer(reader: &mut Reader<'_>, section: &Element, buffer: &mut ClientBuffer) {
    let number = |reader: &mut Reader<'_>, child: &Element, most: u64, into: &mut u32| {
        if let Some(number) = reader.number(child, 1, most) {
            *into = u32::try_from(number).unwrap_or(u32::MAX);
        }
    };
    for child in &section.children {
        match child.name.as_str() {
            "disabled" => reader.yes_no(child, &mut buffer.disabled),
            "queue_size" => number(reader, child, 100_000, &mut buffer.queue_size),
            "events_per_second" => number(reader, child, 1000, &mut buffer.events_per_second),
            "spool_size" => reader.size(child, &mut buffer.spool_size),
            _ => reader.left_out(child, "client_buffer", BUFFER),
        }
    }
}

#[cfg(test)]
mod tests {
    use tld_xml::Source;

    use crate::{Loaded, Role, parse};

    fn read(body: &str) -> Loaded {
        let text = format!("<ossec_config>{body}</ossec_config>");
        parse(&Source::new("etc/ossec.conf", text.into_bytes()), Role::Agent)
    }

    #[test]
    fn a_misspelt_element_is_told_with_what_was_meant_and_ends_nothing() {
        let server = "<server><address>192.0.2.1</address></server>";
        for (body, near) in [
            (format!("<client>{server}<notify-time>5</notify-time></client>"), "notify_time"),
            ("<client><server><adress>192.0.2.1</adress></server></client>".to_owned(), "address"),
            (format!("<client>{server}<enrollment><group>a</group></enrollment></client>"), "groups"),
            ("<client_buffer><disable>yes</disable></client_buffer>".to_owned(), "disabled"),
        ] {
            let told = read(&body).diagnostics;
            let told = told.iter().map(|one| one.render(false)).collect::<String>();
            assert!(told.contains("left out") && told.contains(near), "{body}: {told}");
        }
        let clean = format!(
            "<client>{server}<config-profile>web</config-profile><crypto_method>aes</crypto_method>\
             <ip_update_interval>0</ip_update_interval></client>"
        );
        assert!(read(&clean).diagnostics.is_empty());
    }
}
