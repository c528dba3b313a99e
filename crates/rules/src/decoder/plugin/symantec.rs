//! Symantec Web Security: comma-separated `number=value` entries behind a first field.

use crate::decoder::select::slice;
use crate::{Decoded, StaticField, Value};

/// Entries that carry a field: prefix, field, most bytes of the value.
const ENTRIES: [(&[u8], StaticField, usize); 3] = [
    (b"10=", StaticField::DstUser, 128),
    (b"11=", StaticField::SrcIp, 128),
    (b"60=", StaticField::Url, 1024),
];

/// The id keeps its prefix and whatever follows, to this length.
const ID_LENGTH: usize = 9;

pub(in crate::decoder) fn decode<'e>(decoded: &mut Decoded<'e>, log: &Value<'e>) -> bool {
    let starts = memchr::memchr_iter(b',', log).map(|comma| comma + 1);
    let mut found = false;
    for start in starts {
        let rest = log.get(start..).unwrap_or_default();
        let length = memchr::memchr(b',', rest).unwrap_or(rest.len());
        if let Some((prefix, field, most)) = ENTRIES.iter().find(|(prefix, ..)| rest.starts_with(prefix)) {
            let value = slice(log, start + prefix.len(), start + length.min(prefix.len() + most));
            found |= set_first(decoded, *field, &value);
        } else if rest.starts_with(b"3=") || rest.starts_with(b"2=") {
            let value = slice(log, start, start + rest.len().min(ID_LENGTH));
            found |= set_first(decoded, StaticField::Id, &value);
        }
    }
    found
}

fn set_first(decoded: &mut Decoded<'_>, field: StaticField, value: &[u8]) -> bool {
    let free = decoded.field(field).is_none();
    if free {
        decoded.set(field, value);
    }
    free
}
