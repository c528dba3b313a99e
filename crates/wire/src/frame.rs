//! The stream frame: a little-endian length in four bytes, then that many bytes. Used on TCP and on local streams.
//! Invariant: a decoder holds at most one unfinished frame, and never reserves room that has not arrived.

/// Largest frame that may be announced.
pub const LIMIT: usize = 65_536;
/// A probe in clear, which needs no key.
pub const PING: &[u8] = b"#ping";
/// Its answer.
pub const PONG: &[u8] = b"#pong";

/// The peer cannot be followed any further; the connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes exceeds the limit of {limit}")]
pub struct FrameError {
    /// As announced.
    pub length: usize,
    /// As allowed.
    pub limit: usize,
}

/// Whether a message is a liveness probe.
pub fn is_ping(message: &[u8]) -> bool {
    message.starts_with(PING)
}

/// Puts a message into a frame.
///
/// # Errors
/// When it is longer than [`LIMIT`].
pub fn encode(message: &[u8]) -> Result<Vec<u8>, FrameError> {
    if message.len() > LIMIT {
        return Err(FrameError { length: message.len(), limit: LIMIT });
    }
    let mut frame = Vec::with_capacity(4 + message.len());
    frame.extend_from_slice(&(message.len() as u32).to_le_bytes());
    frame.extend_from_slice(message);
    Ok(frame)
}

/// The first message in bytes of a stream that were kept together; its frame is four bytes longer. `None` means that more
/// must arrive.
///
/// # Errors
/// When a frame over [`LIMIT`] is announced.
pub fn split(stream: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    let Some((head, rest)) = stream.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > LIMIT {
        return Err(FrameError { length, limit: LIMIT });
    }
    Ok(rest.get(..length))
}

/// Finds the frames in a stream that arrives in pieces.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    // The length's bytes, as far as they have come, then the body's.
    pending: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Decoder {
    /// For frames of at most `limit` bytes.
    pub const fn with_limit(limit: usize) -> Self {
        Self { limit, pending: Vec::new() }
    }

    /// Takes bytes off `input` until a frame is whole or the input is used up; `None` means that more must arrive.
    ///
    /// # Errors
    /// When a frame over the limit is announced. The decoder stays unusable then.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        self.fill(4, input);
        let Some(head) = self.pending.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > self.limit {
            return Err(FrameError { length, limit: self.limit });
        }
        self.fill(4 + length, input);
        if self.pending.len() < 4 + length {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.pending);
        frame.drain(..4);
        Ok(Some(frame))
    }

    /// Whether the stream may end here without cutting a frame.
    pub fn is_between_frames(&self) -> bool {
        self.pending.is_empty()
    }

    fn fill(&mut self, goal: usize, input: &mut &[u8]) {
        let missing = goal.saturating_sub(self.pending.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.pending.extend_from_slice(taken);
        *input = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_body_arrives_and_for_ever() {
        let mut decoder = Decoder::default();
        let head = 65_537u32.to_le_bytes();
        let mut input = &head[..];
        assert_eq!(decoder.next(&mut input), Err(FrameError { length: 65_537, limit: LIMIT }));
        let mut more = &b"\0\0\0\0"[..];
        assert!(decoder.next(&mut more).is_err());
        assert!(encode(&vec![0; LIMIT + 1]).is_err());
        assert!(split(&head).is_err());
        assert_eq!(split(&65_536u32.to_le_bytes()), Ok(None));
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut decoder = Decoder::default();
        let mut input = &65_536u32.to_le_bytes()[..];
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert!(decoder.pending.capacity() < 1_024);
    }

    #[test]
    fn probes_are_told_from_messages() {
        assert!(is_ping(b"#ping") && is_ping(b"#ping\n"));
        assert!(!is_ping(b"#pin") && !is_ping(b"!001!#AES:"));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
                                      piece in 1usize..50) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for chunk in stream.chunks(piece) {
                let mut input = chunk;
                while let Some(frame) = decoder.next(&mut input).unwrap() {
                    found.push(frame);
                }
                prop_assert!(input.is_empty());
            }
            prop_assert_eq!(&found, &messages);
            prop_assert!(decoder.is_between_frames());
            let mut rest = &stream[..];
            for message in &messages {
                prop_assert_eq!(split(rest), Ok(Some(&message[..])));
                rest = &rest[4 + message.len()..];
            }
            prop_assert_eq!(split(rest), Ok(None));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::with_limit(64);
            let mut input = &bytes[..];
            while let Ok(Some(frame)) = decoder.next(&mut input) {
                prop_assert!(frame.len() <= 64);
            }
        }
    }
}
