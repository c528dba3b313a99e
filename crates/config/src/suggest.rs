//! The nearest known word for a misspelt one.
//!
//! Words are short and few; anything long is not compared, so hostile names cost nothing.

const LONGEST: usize = 40;

/// The known word that differs least, if it differs by no more than a third of its letters.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let wanted = plain(word);
    let best = known.iter().map(|k| (distance(&wanted, &plain(k)), *k)).min_by_key(|(d, _)| *d)?;
    let most = (best.1.len() / 3).clamp(1, 3);
    (best.0 <= most).then_some(best.1)
}

/// Help for an unknown word: the nearest one, else the whole list.
pub(crate) fn help(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_nothing() {
        assert_eq!(nearest("white-list", &["logall", "white_list"]), Some("white_list"));
        assert_eq!(nearest("executeable", &["name", "executable"]), Some("executable"));
        assert_eq!(nearest("colour", &["name", "executable"]), None);
        assert_eq!(nearest(&"x".repeat(10_000), &["name"]), None);
    }
}
