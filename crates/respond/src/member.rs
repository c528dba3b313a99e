//! Members of JSON objects by name. The contract's own JSON library looks names up without regard to case, and files
//! and managers of any age rely on it.
//! Invariant: the exact name wins over others, so that no field which an attacker names `SrcIP` hides the decoder's.

use serde_json::{Map, Value};

/// A member of an object.
pub(crate) fn find<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    let other = || object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    object.get(name).or_else(other)
}

/// What stands below `value` along the names of `path`, which have slashes between them.
pub(crate) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('/').try_fold(value, |value, name| find(value.as_object()?, name))
}

/// The text there.
pub(crate) fn text<'v>(value: &'v Value, path: &str) -> Option<&'v str> {
    at(value, path)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_the_exact_one_wins() {
        let value =
            serde_json::json!({"Data": {"SRCIP": "192.0.2.1", "srcip": "192.0.2.2", "DstUser": "bob"}});
        assert_eq!(text(&value, "data/srcip"), Some("192.0.2.2"));
        assert_eq!(text(&value, "data/dstuser"), Some("bob"));
        assert_eq!(text(&value, "data/other"), None);
        assert_eq!(text(&value, "data/srcip/deeper"), None);
    }
}
