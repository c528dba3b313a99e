//! Sealed messages: compressed, encrypted with a key of the agent, and numbered.
//! The cipher is the contract's: a fixed start vector and no authentication beyond an MD5 inside. What comes out of
//! [`Opener::open`] is therefore the word of somebody who may know the key, and stays hostile input.
//! Invariant: nothing sealed here is longer than a peer accepts; nothing opened is longer than [`CLEAR_LIMIT`].

use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit};

use crate::counter::{Counter, Replay};
use crate::inflate::{Deflater, InflateError, Inflater};
use crate::key::{SealingKeys, md5_hex};
use crate::name::is_agent_id;

/// Longest payload a sender may seal.
pub const PAYLOAD_LIMIT: usize = 65_408;
/// Longest clear text a receiver takes, header included.
pub const CLEAR_LIMIT: usize = 65_536;

const AES_IV: &[u8; 16] = b"FEDCBA0987654321";
const BLOWFISH_IV: [u8; 8] = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];
const TAG: &[u8] = b"#AES";
const MD5_LENGTH: usize = 32;
// Five random digits, ten and four counter digits, each counter closed by a colon.
const HEADER: usize = 21;

/// The ciphers of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// AES-256-CBC.
    #[default]
    Aes,
    /// Blowfish-CBC, for old peers.
    Blowfish,
}

/// Why a payload was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Empty, or over [`PAYLOAD_LIMIT`].
    #[error("a payload of {0} bytes cannot be sealed")]
    Length(usize),
    /// Too long once sealed.
    #[error("the sealed message has {0} bytes")]
    Sealed(usize),
}

/// Why a message was not opened. The three classes are the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The message is malformed or damaged.
    #[error("the message is corrupt: {0}")]
    Corrupt(&'static str),
    /// It was sealed with another key.
    #[error("the message was sealed with another key")]
    BadKey,
    /// It was seen before.
    #[error("the message was seen before")]
    Replay,
}

impl From<InflateError> for OpenError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Damaged => Self::Corrupt("compressed text"),
            InflateError::TooLong(_) => Self::Corrupt("length"),
        }
    }
}

impl From<Replay> for OpenError {
    fn from(replay: Replay) -> Self {
        match replay {
            Replay::Duplicate => Self::Replay,
            Replay::Older => Self::BadKey,
        }
    }
}

/// A message before it is opened: what is readable without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The announced agent, if the message announces one.
    pub id: Option<&'a str>,
    /// The cipher that the tag names.
    pub method: Method,
    /// The rest.
    pub ciphertext: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads the header of a message.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] when the id is unclosed or no number, or the colon is missing.
    pub fn parse(message: &'a [u8]) -> Result<Self, OpenError> {
        let (id, rest) = match message.strip_prefix(b"!") {
            None => (None, message),
            Some(rest) => {
                // Nine bytes are enough: an id has at most eight digits.
                let close = rest.iter().take(9).position(|byte| *byte == b'!');
                let (digits, behind) =
                    close.and_then(|at| rest.split_at_checked(at)).ok_or(OpenError::Corrupt("agent id"))?;
                let id = str::from_utf8(digits).ok().filter(|id| is_agent_id(id));
                (Some(id.ok_or(OpenError::Corrupt("agent id"))?), &behind[1..])
            }
        };
        let (method, rest) = match rest.strip_prefix(TAG) {
            Some(rest) => (Method::Aes, rest),
            None => (Method::Blowfish, rest),
        };
        let ciphertext = rest.strip_prefix(b":").ok_or(OpenError::Corrupt("separator"))?;
        Ok(Self { id, method, ciphertext })
    }
}

/// An opened message. Its counter is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// As stamped by the sender.
    pub counter: Counter,
    /// What it said.
    pub payload: Vec<u8>,
}

/// Opens messages; keeps the decoder's memory between them.
#[derive(Debug, Default)]
pub struct Opener(Inflater);

impl Opener {
    /// Opens the ciphertext of an [`Envelope`].
    ///
    /// # Errors
    /// With the contract's class.
    pub fn open(
        &mut self,
        keys: &SealingKeys,
        method: Method,
        ciphertext: &[u8],
    ) -> Result<Opened, OpenError> {
        let padded = decrypt(keys, method, ciphertext)?;
        let bangs = padded.iter().take_while(|byte| **byte == b'!').count();
        if bangs == 0 {
            return Err(OpenError::BadKey);
        }
        read_clear(self.0.inflate(&padded[bangs..], CLEAR_LIMIT)?)
    }
}

fn read_clear(mut clear: Vec<u8>) -> Result<Opened, OpenError> {
    let (sum, body) = clear.split_at_checked(MD5_LENGTH).ok_or(OpenError::Corrupt("length"))?;
    if body.len() < HEADER {
        return Err(OpenError::Corrupt("length"));
    }
    if md5_hex(body) != sum {
        return Err(OpenError::Corrupt("checksum"));
    }
    if body[15] != b':' || body[20] != b':' {
        return Err(OpenError::Corrupt("counter"));
    }
    let number = |digits: &[u8]| {
        let text = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        text.and_then(|text| text.parse::<u32>().ok()).ok_or(OpenError::Corrupt("counter"))
    };
    let global = number(&body[5..15])?;
    let local = number(&body[16..20])?;
    let counter = Counter { global, local: u16::try_from(local).unwrap_or(u16::MAX) };
    clear.drain(..MD5_LENGTH + HEADER);
    Ok(Opened { counter, payload: clear })
}

/// Seals messages; keeps the compressor's memory between them.
#[derive(Debug, Default)]
pub struct Sealer(Deflater);

impl Sealer {
    /// Seals a payload. `id` is announced in clear and given by agents whose registration demands it
    /// ([`AgentKey::announces_id`](crate::key::AgentKey::announces_id)); `random` is the caller's.
    ///
    /// # Errors
    /// When the payload is empty or too long for the contract, before or after sealing.
    pub fn seal(
        &mut self,
        keys: &SealingKeys,
        method: Method,
        id: Option<&str>,
        random: u16,
        counter: Counter,
        payload: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let compressed = self.0.deflate(&clear_text(random, counter, payload)?);
        seal_compressed(keys, method, id, &compressed)
    }
}

/// The text that is compressed and encrypted: checksum, random digits, counters, payload.
///
/// # Errors
/// When the payload is empty or over [`PAYLOAD_LIMIT`].
pub fn clear_text(random: u16, counter: Counter, payload: &[u8]) -> Result<Vec<u8>, SealError> {
    if payload.is_empty() || payload.len() > PAYLOAD_LIMIT {
        return Err(SealError::Length(payload.len()));
    }
    let header = format!("{random:05}{:010}:{:04}:", counter.global, counter.local);
    let mut clear = Vec::with_capacity(MD5_LENGTH + HEADER + payload.len());
    clear.extend_from_slice(&[0; MD5_LENGTH]);
    clear.extend_from_slice(header.as_bytes());
    clear.extend_from_slice(payload);
    let sum = md5_hex(&clear[MD5_LENGTH..]);
    clear[..MD5_LENGTH].copy_from_slice(&sum);
    Ok(clear)
}

/// Seals what is compressed already; apart, so that byte-exact vectors do not depend on a compressor.
///
/// # Errors
/// When the result exceeds what a peer takes.
pub fn seal_compressed(
    keys: &SealingKeys,
    method: Method,
    id: Option<&str>,
    compressed: &[u8],
) -> Result<Vec<u8>, SealError> {
    // One bang at least, and as many more as fill a block of eight.
    let bangs = 8 - compressed.len() % 8;
    let mut padded = vec![b'!'; bangs];
    padded.extend_from_slice(compressed);
    let mut message = Vec::with_capacity(padded.len() + 32);
    if let Some(id) = id {
        message.push(b'!');
        message.extend_from_slice(id.as_bytes());
        message.push(b'!');
    }
    if method == Method::Aes {
        message.extend_from_slice(TAG);
    }
    message.push(b':');
    message.extend_from_slice(&encrypt(keys, method, &padded));
    if message.len() > CLEAR_LIMIT {
        return Err(SealError::Sealed(message.len()));
    }
    Ok(message)
}

fn encrypt(keys: &SealingKeys, method: Method, text: &[u8]) -> Vec<u8> {
    match method {
        Method::Aes => {
            cbc::Encryptor::inner_iv_init(keys.aes().clone(), AES_IV.into()).encrypt_padded_vec::<Pkcs7>(text)
        }
        Method::Blowfish => cbc::Encryptor::inner_iv_init(keys.blowfish().clone(), (&BLOWFISH_IV).into())
            .encrypt_padded_vec::<NoPadding>(text),
    }
}

fn decrypt(keys: &SealingKeys, method: Method, text: &[u8]) -> Result<Vec<u8>, OpenError> {
    let opened = match method {
        Method::Aes => {
            cbc::Decryptor::inner_iv_init(keys.aes().clone(), AES_IV.into()).decrypt_padded_vec::<Pkcs7>(text)
        }
        Method::Blowfish => cbc::Decryptor::inner_iv_init(keys.blowfish().clone(), (&BLOWFISH_IV).into())
            .decrypt_padded_vec::<NoPadding>(text),
    };
    opened.map_err(|_wrong_length_or_padding| OpenError::BadKey)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> SealingKeys {
        SealingKeys::derive("001", "web-01", "0123456789abcdef")
    }

    #[test]
    fn headers_are_read_before_any_key_is_known() {
        for (message, id, method, ciphertext) in [
            ("!001!#AES:xyz", Some("001"), Method::Aes, "xyz"),
            ("!12345678!:xyz", Some("12345678"), Method::Blowfish, "xyz"),
            ("#AES::", None, Method::Aes, ":"),
            (":", None, Method::Blowfish, ""),
        ] {
            let expected = Envelope { id, method, ciphertext: ciphertext.as_bytes() };
            assert_eq!(Envelope::parse(message.as_bytes()), Ok(expected));
        }
    }

    #[test]
    fn malformed_headers_are_corrupt() {
        for message in [
            &b""[..],
            b"!",
            b"!!:",
            b"!001",
            b"!00a!:",
            b"!123456789!:",
            b"#AES",
            b"#AESx",
            b"#aes:x",
            b"!001!",
        ] {
            assert!(matches!(Envelope::parse(message), Err(OpenError::Corrupt(_))), "{message:?}");
        }
    }

    #[test]
    fn lengths_outside_the_contract_are_not_sealed() {
        let seal = |length| {
            let payload = vec![b'x'; length];
            Sealer::default().seal(&keys(), Method::Aes, None, 0, Counter::default(), &payload)
        };
        assert_eq!(seal(0), Err(SealError::Length(0)));
        assert!(seal(PAYLOAD_LIMIT).is_ok());
        assert_eq!(seal(PAYLOAD_LIMIT + 1), Err(SealError::Length(PAYLOAD_LIMIT + 1)));
    }

    #[test]
    fn receivers_take_more_than_senders_give_and_nothing_beyond() {
        for (length, accepted) in [(65_483, true), (65_484, false)] {
            let mut clear = vec![b'x'; MD5_LENGTH];
            clear.extend_from_slice(b"000000000000000:0001:");
            clear.resize(MD5_LENGTH + HEADER + length, b'y');
            let sum = md5_hex(&clear[MD5_LENGTH..]);
            clear[..MD5_LENGTH].copy_from_slice(&sum);
            let sealed =
                seal_compressed(&keys(), Method::Aes, None, &Deflater::default().deflate(&clear)).unwrap();
            let envelope = Envelope::parse(&sealed).unwrap();
            let opened = Opener::default().open(&keys(), Method::Aes, envelope.ciphertext);
            assert_eq!(opened.is_ok(), accepted, "{length}");
        }
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let sealed =
            Sealer::default().seal(&keys(), Method::Aes, None, 1, Counter::default(), b"1:a:b").unwrap();
        let other = SealingKeys::derive("001", "web-01", "another");
        let envelope = Envelope::parse(&sealed).unwrap();
        assert_eq!(Opener::default().open(&other, Method::Aes, envelope.ciphertext), Err(OpenError::BadKey));
        assert_eq!(Opener::default().open(&keys(), Method::Aes, b""), Err(OpenError::BadKey));
        assert_eq!(Opener::default().open(&keys(), Method::Blowfish, b""), Err(OpenError::BadKey));
    }

    #[test]
    fn counters_must_be_digits() {
        let mut clear = clear_text(0, Counter { global: 1, local: 2 }, b"x").unwrap();
        clear[MD5_LENGTH + 6] = b'-';
        let sum = md5_hex(&clear[MD5_LENGTH..]);
        clear[..MD5_LENGTH].copy_from_slice(&sum);
        assert_eq!(read_clear(clear), Err(OpenError::Corrupt("counter")));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(payload in prop::collection::vec(any::<u8>(), 1..2_000), random: u16, global: u32,
                                local in 0u16..9_998, blowfish: bool, id in prop::option::of("[0-9]{1,8}")) {
            let method = if blowfish { Method::Blowfish } else { Method::Aes };
            let counter = Counter { global, local };
            let (mut sealer, mut opener) = (Sealer::default(), Opener::default());
            let sealed = sealer.seal(&keys(), method, id.as_deref(), random, counter, &payload).unwrap();
            let envelope = Envelope::parse(&sealed).unwrap();
            prop_assert_eq!(envelope.id, id.as_deref());
            prop_assert_eq!(envelope.method, method);
            let opened = opener.open(&keys(), method, envelope.ciphertext).unwrap();
            prop_assert_eq!(opened, Opened { counter, payload });
        }

        #[test]
        fn any_message_is_survived(message in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(envelope) = Envelope::parse(&message) {
                let _ = Opener::default().open(&keys(), envelope.method, envelope.ciphertext);
            }
            let _ = Opener::default().open(&keys(), Method::Blowfish, &message);
        }

        #[test]
        fn a_changed_byte_never_opens_to_another_text(at: prop::sample::Index, change in 1u8..) {
            let payload = b"1:/var/log/auth.log:hello";
            let mut sealed = Sealer::default()
                .seal(&keys(), Method::Aes, None, 1, Counter::default(), payload).unwrap();
            let at = at.index(sealed.len() - 5) + 5;
            sealed[at] ^= change;
            // A damaged padding block may still read as padding (one in 256); the text is then untouched.
            if let Ok(opened) = Opener::default().open(&keys(), Method::Aes, &sealed[5..]) {
                prop_assert_eq!(opened.payload, payload);
            }
        }
    }
}
