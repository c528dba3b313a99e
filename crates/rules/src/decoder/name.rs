//! Names of dynamic fields, kept where they are asked for: a line of another kind asks for others each time, and would wait
//! for the memory of each.
//!
//! Invariant: a name is the text that it was made of.

/// A name; most are short enough to stand here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// So many of these bytes.
    Short(u8, [u8; Self::ROOM]),
    Long(Box<[u8]>),
}

impl Name {
    const ROOM: usize = 22;

    pub(super) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; Self::ROOM];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(own), Ok(length)) => {
                own.copy_from_slice(name);
                Self::Short(length, bytes)
            }
            _ => Self::Long(name.into()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_is_kept() {
        for length in 0..300 {
            let name = vec![b'a'; length];
            assert_eq!(Name::new(&name).bytes(), name);
        }
    }
}
