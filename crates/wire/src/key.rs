//! Agent keys: the lines of `etc/client.keys`, and what is derived from them for the ciphers and for enrolment.
//! Invariant: no secret is printed by `Debug`, and each is wiped when it is dropped.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::OnceLock;

use aes::Aes256;
use blowfish::Blowfish;
use md5::{Digest, Md5};
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::name::{ParseIp, RegisteredIp, is_agent_id, is_agent_name};

/// Longest line of a key file that is looked at; real ones stay below 400 bytes.
pub const LINE_LIMIT: usize = 1_024;

/// What an agent and its manager share: the raw key or the enrolment password.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself; the caller answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

/// One agent's entry. The id stays as it is written, since its leading zeros are hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKey {
    /// Decimal digits.
    pub id: String,
    /// Registered name.
    pub name: String,
    /// From where it may speak.
    pub ip: RegisteredIp,
    /// The shared secret.
    pub key: Secret,
}

/// Why a line is not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyLineError {
    /// Fields are missing or too many.
    #[error("a key line has four fields: id, name, address, key")]
    Fields,
    /// Not one to eight digits.
    #[error("`{0}` is not an agent id")]
    Id(String),
    /// Not a name.
    #[error("`{0}` is not an agent name")]
    Name(String),
    /// Not an address.
    #[error(transparent)]
    Ip(#[from] ParseIp),
    /// The key holds other characters than a name may; it is not repeated here.
    #[error("the key is empty or has characters that a key may not have")]
    Key,
    /// Longer than [`LINE_LIMIT`].
    #[error("the line has more than {LINE_LIMIT} bytes")]
    Length,
}

impl FromStr for AgentKey {
    type Err = KeyLineError;

    fn from_str(line: &str) -> Result<Self, KeyLineError> {
        if line.len() > LINE_LIMIT {
            return Err(KeyLineError::Length);
        }
        let mut fields = line.split(' ').filter(|field| !field.is_empty());
        let (Some(id), Some(name), Some(ip), Some(key), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(KeyLineError::Fields);
        };
        if !is_agent_id(id) {
            return Err(KeyLineError::Id(id.into()));
        }
        if !is_agent_name(name) {
            return Err(KeyLineError::Name(name.into()));
        }
        let ip = ip.parse()?;
        if !is_agent_name(key) {
            return Err(KeyLineError::Key);
        }
        Ok(Self { id: id.into(), name: name.into(), ip, key: Secret::new(key) })
    }
}

impl AgentKey {
    /// The line of the key file, without its end. Secret, like the key in it.
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{} {} {} {}", self.id, self.name, self.ip, self.key.expose()))
    }

    /// Lower-case hex SHA-1 of id, name and key, by which an enrolling agent shows that it has a key already.
    pub fn hash(&self) -> String {
        let digest =
            Sha1::new().chain_update(&self.id).chain_update(&self.name).chain_update(self.key.expose());
        hex(&digest.finalize())
    }

    /// What the ciphers need.
    pub fn sealing(&self) -> SealingKeys {
        SealingKeys::derive(&self.id, &self.name, self.key.expose())
    }

    /// Whether its messages carry `!id!`.
    pub fn announces_id(&self) -> bool {
        !self.ip.names_one_ipv4()
    }
}

/// A line of a key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLine {
    /// A live agent.
    Agent(AgentKey),
    /// A removed one, kept so that its id is never given again.
    Removed(AgentKey),
    /// Comment, empty, or not understood; kept as it is.
    Other(String),
}

/// A whole key file. Printing it gives back every line, also those that were not understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyFile {
    /// In file order.
    pub lines: Vec<KeyLine>,
}

impl KeyFile {
    /// Reads a file. Bad lines are kept and reported with their number, counted from 1.
    pub fn parse(text: &str) -> (Self, Vec<(usize, KeyLineError)>) {
        let mut problems = Vec::new();
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            lines.push(match parse_line(line) {
                Ok(parsed) => parsed,
                Err(error) => {
                    problems.push((index + 1, error));
                    KeyLine::Other(line.into())
                }
            });
        }
        (Self { lines }, problems)
    }

    /// The file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for line in &self.lines {
            match line {
                KeyLine::Agent(agent) => text.push_str(&agent.to_line()),
                KeyLine::Removed(agent) => {
                    text.push_str(&agent.id);
                    text.push_str(" !");
                    text.push_str(agent.to_line().split_once(' ').map_or("", |(_, rest)| rest));
                }
                KeyLine::Other(other) => text.push_str(other),
            }
            text.push('\n');
        }
        text
    }

    /// The live agents, in file order; an agent's own file means the first.
    pub fn agents(&self) -> impl Iterator<Item = &AgentKey> {
        self.lines.iter().filter_map(|line| match line {
            KeyLine::Agent(agent) => Some(agent),
            KeyLine::Removed(_) | KeyLine::Other(_) => None,
        })
    }

    /// The id for the next agent: one above every id ever seen, removed ones too. `None` when ids have run out.
    pub fn next_id(&self) -> Option<String> {
        let ids = self.lines.iter().filter_map(|line| match line {
            KeyLine::Agent(agent) | KeyLine::Removed(agent) => agent.id.parse::<u32>().ok(),
            KeyLine::Other(_) => None,
        });
        let next = ids.max().unwrap_or(0) + 1;
        (next <= 99_999_999).then(|| format!("{next:03}"))
    }

    /// Takes an agent out. With `purge` its line vanishes, else it stays behind a `!`. Tells whether it was there.
    pub fn remove(&mut self, id: &str, purge: bool) -> bool {
        let is_it = |line: &KeyLine| matches!(line, KeyLine::Agent(agent) if agent.id == id);
        let Some(at) = self.lines.iter().position(is_it) else { return false };
        match self.lines.remove(at) {
            KeyLine::Agent(agent) if !purge => self.lines.insert(at, KeyLine::Removed(agent)),
            _ => {}
        }
        true
    }
}

fn parse_line(line: &str) -> Result<KeyLine, KeyLineError> {
    if line.is_empty() || line.starts_with(['#', ' ']) {
        return Ok(KeyLine::Other(line.into()));
    }
    let removed = line.split_once(' ').and_then(|(id, rest)| Some((id, rest.strip_prefix(['!', '#'])?)));
    match removed {
        None => line.parse().map(KeyLine::Agent),
        Some((id, rest)) => format!("{id} {rest}").parse().map(KeyLine::Removed),
    }
}

/// A fresh key: 64 hexadecimal characters of the caller's 32 random bytes.
pub fn generate(random: &[u8; 32]) -> Secret {
    Secret::new(hex(random))
}

/// The keys of both ciphers for one agent.
#[derive(Clone)]
pub struct SealingKeys {
    text: Zeroizing<[u8; 47]>,
    aes: Aes256,
    // Its schedule costs as much as sealing a large message, and hardly any agent needs it.
    blowfish: OnceLock<Box<Blowfish>>,
}

impl SealingKeys {
    /// Derives them. The id counts as written.
    pub fn derive(id: &str, name: &str, raw: &str) -> Self {
        let names = [md5_hex(name.as_bytes()), md5_hex(id.as_bytes())].concat();
        let mut text = Zeroizing::new([0; 47]);
        text[..32].copy_from_slice(&*Zeroizing::new(md5_hex(raw.as_bytes())));
        text[32..].copy_from_slice(&md5_hex(&names)[..15]);
        let mut aes = Zeroizing::new([0; 32]);
        aes.copy_from_slice(&text[..32]);
        Self { aes: aes::cipher::KeyInit::new((&*aes).into()), text, blowfish: OnceLock::new() }
    }

    /// The key string of the contract, 47 characters; for tools that show or compare it.
    pub fn expose(&self) -> &[u8; 47] {
        &self.text
    }

    pub(crate) const fn aes(&self) -> &Aes256 {
        &self.aes
    }

    pub(crate) fn blowfish(&self) -> &Blowfish {
        self.blowfish.get_or_init(|| {
            let made = <Blowfish as aes::cipher::KeyInit>::new_from_slice(&*self.text);
            Box::new(made.expect("47 bytes are within Blowfish's 4 to 56"))
        })
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKeys(…)")
    }
}

/// MD5 as 32 lower-case hexadecimal characters, as the contract uses it everywhere.
pub fn md5_hex(bytes: &[u8]) -> [u8; 32] {
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(Md5::digest(bytes)) {
        pair.copy_from_slice(&[nibble(byte >> 4), nibble(byte & 15)]);
    }
    text
}

/// [`md5_hex`] as text.
pub fn md5_text(bytes: &[u8]) -> String {
    md5_hex(bytes).iter().copied().map(char::from).collect()
}

const fn nibble(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "6f1c2b0a9d8e7f605142332415060718293a4b5c6d7e8f90a1b2c3d4e5f60718";

    #[test]
    fn a_file_comes_back_as_it_was_with_its_comments_and_removed_agents() {
        let text = format!("# keys\n001 web-01 any {KEY}\n\n007 !old 10.0.0.0/8 {KEY}\nrubbish\n");
        let (file, problems) = KeyFile::parse(&text);
        assert_eq!(problems, [(5, KeyLineError::Fields)]);
        assert_eq!(file.agents().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["web-01"]);
        assert_eq!(*file.to_text(), text);
    }

    #[test]
    fn an_id_is_never_given_twice() {
        let (mut file, _) = KeyFile::parse(&format!("001 aa any {KEY}\n007 #old any {KEY}\n"));
        assert_eq!(file.next_id().as_deref(), Some("008"));
        assert!(file.remove("001", false));
        assert!(!file.remove("001", false));
        assert_eq!(file.lines.len(), 2);
        assert_eq!(KeyFile::default().next_id().as_deref(), Some("001"));
        assert_eq!(KeyFile::parse(&format!("99999999 aa any {KEY}")).0.next_id(), None);
    }

    #[test]
    fn purging_leaves_nothing() {
        let (mut file, _) = KeyFile::parse(&format!("001 aa any {KEY}\n"));
        assert!(file.remove("001", true));
        assert_eq!(*file.to_text(), "");
    }

    #[test]
    fn bad_lines_say_what_is_wrong_and_never_the_key() {
        for (line, error) in [
            ("001 web any", KeyLineError::Fields),
            ("001 web any secretkey more", KeyLineError::Fields),
            ("x1 web any secretkey", KeyLineError::Id("x1".into())),
            ("001 w any secretkey", KeyLineError::Name("w".into())),
            ("001 web any s/ecretkey", KeyLineError::Key),
        ] {
            assert_eq!(line.parse::<AgentKey>(), Err(error), "{line}");
        }
        assert!("001 web 1.2.3 secretkey".parse::<AgentKey>().is_err());
        assert_eq!("1".repeat(2_000).parse::<AgentKey>(), Err(KeyLineError::Length));
    }

    #[test]
    fn debug_shows_no_secret() {
        let agent: AgentKey = format!("001 web-01 any {KEY}").parse().unwrap();
        let shown = format!("{agent:?} {:?}", agent.sealing());
        assert!(!shown.contains(KEY) && !shown.contains("8d22112a"), "{shown}");
    }

    #[test]
    fn a_generated_key_is_64_characters_that_every_peer_takes() {
        let key = generate(&[0xa5; 32]);
        assert_eq!(key.expose(), "a5".repeat(32));
        assert!(is_agent_name(key.expose()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,200}(\n\\PC{0,60}){0,4}") {
            let (file, _) = KeyFile::parse(&text);
            let again = KeyFile::parse(&file.to_text()).0;
            prop_assert_eq!(again, file);
        }

        #[test]
        fn entries_round_trip(id in "[0-9]{1,8}", name in "[A-Za-z0-9_-][A-Za-z0-9._-]{1,60}",
                              ip in "any|10\\.1\\.2\\.[0-9]|10\\.0\\.0\\.0/8|2001:db8::[1-9]", key in "[a-f0-9]{64}") {
            let line = format!("{id} {name} {ip} {key}");
            let agent: AgentKey = line.parse().unwrap();
            prop_assert_eq!(&*agent.to_line(), &line);
        }
    }
}
