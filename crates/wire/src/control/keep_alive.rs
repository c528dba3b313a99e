//! The agent's sign of life: who it is, which configuration it has, its labels.
//! Invariant: what is written here parses to the same value, whatever characters the host's names have.

use std::net::IpAddr;

use crate::seal::PAYLOAD_LIMIT;

const MERGED: &str = " merged.mg";
const OWN_IP: &str = "_agent_ip";

/// A label in a keep-alive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Label {
    /// Set by the product, not by the operator.
    pub system: bool,
    /// Not shown in alerts.
    pub hidden: bool,
    /// Dots nest.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A keep-alive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeepAlive {
    /// Description of the system, up to the product's name.
    pub system: String,
    /// What stands behind the last ` - `: the product and its version.
    pub product: Option<String>,
    /// MD5 of `agent.conf`, if the agent has one.
    pub config_sum: Option<String>,
    /// Labels, without the address.
    pub labels: Vec<Label>,
    /// MD5 of `merged.mg`, if the agent has one.
    pub merged_sum: Option<String>,
    /// Local address of the agent's connection.
    pub ip: Option<IpAddr>,
}

/// A system description taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct System<'a> {
    /// Kernel, node, release, version, machine, as far as they are given.
    pub uname: [Option<&'a str>; 5],
    /// Name of the operating system.
    pub name: Option<&'a str>,
    /// Its short name.
    pub platform: Option<&'a str>,
    /// Its version.
    pub version: Option<&'a str>,
    /// Its code name.
    pub codename: Option<&'a str>,
}

fn is_md5(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl KeepAlive {
    /// Reads the text behind `#!-`. `None` without a line end: then it is no keep-alive.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let end = memchr::memrchr(b'\n', text)?;
        let text = String::from_utf8_lossy(&text[..end]);
        let mut lines = text.split('\n');
        let mut found = Self::default();
        found.read_first(lines.next().unwrap_or_default());
        for line in lines {
            if let Some(sum) = line.strip_suffix(MERGED) {
                found.merged_sum = is_md5(sum).then(|| sum.to_ascii_lowercase());
            } else if let Some(label) = Label::parse(line) {
                if label.system && label.key == OWN_IP {
                    found.ip = label.value.parse().ok();
                } else {
                    found.labels.push(label);
                }
            }
        }
        Some(found)
    }

    fn read_first(&mut self, line: &str) {
        let line = match line.rsplit_once(" / ").filter(|(_, sum)| is_md5(sum)) {
            None => line,
            Some((line, sum)) => {
                self.config_sum = Some(sum.to_ascii_lowercase());
                line
            }
        };
        match line.rsplit_once(" - ") {
            None => self.system = line.into(),
            Some((system, product)) => {
                self.system = system.into();
                self.product = Some(product.into());
            }
        }
    }

    /// The text behind `#!-`. Labels that do not fit into a message are left out.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let one_line = |text: &str| text.replace('\n', " ");
        let mut head = one_line(&self.system);
        if let Some(product) = &self.product {
            head.push_str(" - ");
            head.push_str(&one_line(product));
        }
        if let Some(sum) = &self.config_sum {
            head.push_str(" / ");
            head.push_str(sum);
        }
        let mut tail = format!("{}{MERGED}\n", self.merged_sum.as_deref().unwrap_or("x"));
        if let Some(ip) = self.ip {
            tail.push_str(&format!("#\"{OWN_IP}\":{ip}\n"));
        }
        let room = PAYLOAD_LIMIT.saturating_sub(super::LEAD.len() + tail.len() + 1);
        head.truncate(head.floor_char_boundary(room));
        head.push('\n');
        for label in self.labels.iter().filter(|label| label.is_writable()) {
            let line = label.to_line();
            if head.len() + line.len() > room {
                break;
            }
            head.push_str(&line);
        }
        head.push_str(&tail);
        head.into_bytes()
    }

    /// The system description's parts.
    pub fn system(&self) -> System<'_> {
        System::parse(&self.system)
    }
}

impl Label {
    fn parse(line: &str) -> Option<Self> {
        let (system, rest) = line.strip_prefix('#').map_or((false, line), |rest| (true, rest));
        let (hidden, rest) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
        let (key, value) = rest.strip_prefix('"')?.split_once("\":")?;
        Some(Self { system, hidden, key: key.into(), value: value.into() })
    }

    fn is_writable(&self) -> bool {
        !self.key.contains(['"', '\n']) && !self.value.contains('\n') && !self.value.ends_with(MERGED)
    }

    fn to_line(&self) -> String {
        let (system, hidden) = (if self.system { "#" } else { "" }, if self.hidden { "!" } else { "" });
        format!("{system}{hidden}\"{}\":{}\n", self.key, self.value)
    }
}

impl<'a> System<'a> {
    /// Reads `Linux |node |release |version |machine [Name|platform: version (codename)]`; what is missing is none.
    pub fn parse(text: &'a str) -> Self {
        let mut found = Self::default();
        let (uname, bracket) = match text.rsplit_once(" [") {
            Some((uname, bracket)) => (uname, bracket.trim_end().strip_suffix(']')),
            None => (text, None),
        };
        let mut parts = uname.splitn(5, " |");
        found.uname = std::array::from_fn(|_| parts.next());
        let Some(bracket) = bracket else { return found };
        let (name, rest) = match bracket.split_once('|') {
            Some((name, rest)) => (name, Some(rest)),
            None => (bracket, None),
        };
        found.name = Some(name);
        if let Some((platform, version)) = rest.map(|rest| rest.split_once(": ").unwrap_or((rest, ""))) {
            found.platform = Some(platform);
            let coded = version.strip_suffix(')').and_then(|version| version.split_once(" ("));
            found.version =
                Some(coded.map_or(version, |(version, _)| version)).filter(|text| !text.is_empty());
            found.codename = coded.map(|(_, codename)| codename);
        }
        found
    }
}
