//! Bytes that do not stand in a JSON string as they are, for those who read logs and those who write alerts.

use wide::u8x16;

/// Which of sixteen bytes are quotes, backslashes or control characters: a bit for each.
#[inline]
pub(crate) fn specials(bytes: [u8; 16]) -> u32 {
    let bytes = u8x16::new(bytes);
    // With this bit turned, a quote is next to the control characters.
    let turned = bytes ^ u8x16::splat(b'"' ^ 0x20);
    let low = turned.min(u8x16::splat(0x20)).simd_eq(turned);
    (low | bytes.simd_eq(u8x16::splat(b'\\'))).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::specials;

    #[test]
    fn each_byte_is_told_where_it_stands() {
        for byte in 0..=u8::MAX {
            for place in 0..16 {
                let mut bytes = [b'a'; 16];
                bytes[place] = byte;
                let special = byte < 0x20 || byte == b'"' || byte == b'\\';
                assert_eq!(specials(bytes), u32::from(special) << place, "{byte}");
            }
        }
    }
}
