//! What an alert offers a response to act on, found the way the executables find it (active-response 8).

use std::net::IpAddr;

use serde::Deserialize;
use tld_model::Alert;

/// The values of one alert that responses use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The first numeric address among `data.win.eventdata.ipAddress`, `….destinationIp` and `data.srcip`, canonical.
    pub address: Option<IpAddr>,
    /// `data.srcip` as decoded.
    pub raw_source: Option<Vec<u8>>,
    /// `data.dstuser`.
    pub user: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Shape {
    data: Data,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Data {
    win: Win,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Win {
    eventdata: EventData,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct EventData {
    ip_address: Option<String>,
    destination_ip: Option<String>,
}

impl Subject {
    /// Reads the alert. The JSON is only parsed for Windows events, whose addresses stand nowhere else.
    pub fn of(alert: &Alert) -> Self {
        let windows = if memchr_win(alert.json.tail()) { event_data(alert) } else { EventData::default() };
        let raw_source = alert.srcip.clone();
        let candidates =
            [windows.ip_address.map(String::into_bytes), windows.destination_ip.map(String::into_bytes)];
        let address = candidates
            .iter()
            .chain(std::iter::once(&raw_source))
            .flatten()
            .find_map(|text| tld_pattern::parse_address(text));
        let user = alert.dstuser.as_ref().map(|user| String::from_utf8_lossy(user).into_owned());
        Self { address, raw_source, user }
    }
}

fn memchr_win(tail: &[u8]) -> bool {
    const NEEDLE: &[u8] = b"\"eventdata\":{";
    tail.windows(NEEDLE.len()).any(|window| window == NEEDLE)
}

fn event_data(alert: &Alert) -> EventData {
    let mut json = Vec::new();
    alert.json.write("0.0", &mut json);
    let text = String::from_utf8_lossy(&json);
    serde_json::from_str::<Shape>(&text).unwrap_or_default().data.win.eventdata
}

/// Which values a response uses, known by the name of its executable; a file of the operator may use any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    /// Blocks or reports an address.
    Address,
    /// Acts on an account.
    User,
    /// Takes neither.
    Neither,
    /// A file of the operator: an allow-listed address stops it, as the contract says.
    Unknown,
}

impl Uses {
    /// By the executable's name without an extension.
    pub fn of(executable: &str) -> Self {
        let stem = executable.rsplit_once('.').map_or(executable, |(stem, _)| stem);
        match stem {
            "firewall-drop"
            | "default-firewall-drop"
            | "firewalld-drop"
            | "host-deny"
            | "route-null"
            | "ip-customblock"
            | "block-ip"
            | "netsh"
            | "pf"
            | "ipfw"
            | "npf" => Self::Address,
            "disable-account" => Self::User,
            "restart-wazuh" | "restart-ossec" | "wazuh-slack" | "webhook" | "kaspersky" | "kill-process"
            | "quarantine-file" | "isolate-host" => Self::Neither,
            _ => Self::Unknown,
        }
    }

    /// May act on an address.
    pub const fn address(self) -> bool {
        matches!(self, Self::Address | Self::Unknown)
    }

    /// Acts on a user.
    pub const fn user(self) -> bool {
        matches!(self, Self::User)
    }
}
