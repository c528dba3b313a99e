//! `json`: a line must be an object; labels are added, the result is written compactly.

use serde_json::{Map, Value};

use super::Format;

/// Reader of JSON lines.
#[derive(Debug)]
pub(crate) struct Json {
    labels: Vec<(String, String)>,
}

impl Json {
    /// Adds these labels to each object; dots in keys nest, members of the line win.
    pub(crate) fn new(labels: Vec<(String, String)>) -> Self {
        Self { labels }
    }
}

impl Format for Json {
    fn feed(&mut self, line: &[u8], out: &mut Vec<Vec<u8>>) {
        // serde_json bounds the nesting itself (128 levels).
        let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(line) else { return };
        for (key, value) in &self.labels {
            add(&mut object, key, value);
        }
        if let Ok(text) = serde_json::to_vec(&object) {
            out.push(text);
        }
    }
}

fn add(object: &mut Map<String, Value>, key: &str, value: &str) {
    match key.split_once('.') {
        None => {
            object.entry(key).or_insert_with(|| Value::from(value));
        }
        Some((head, rest)) => {
            let inner = object.entry(head).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                add(inner, rest, value);
            }
        }
    }
}
