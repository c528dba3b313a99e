//! The `mitre` element (analysis-output 1.2). Two forms: technique ids alone, or pairs of tactic and technique.
//! Everything that alerts show is worked out when the rule is loaded.

use tld_xml::{Diagnostic, Element, Source};

use crate::alert::TECHNIQUES;

/// The three lists of `rule.mitre`; nothing is shown when `tactic` is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mitre {
    pub(crate) id: Vec<String>,
    pub(crate) tactic: Vec<String>,
    pub(crate) technique: Vec<String>,
}

enum Block {
    Ids(Vec<String>),
    Pair { tactic: String, technique: String },
}

/// Reads all `mitre` blocks of one rule.
pub(crate) fn read(source: &Source, blocks: &[&Element], diagnostics: &mut Vec<Diagnostic>) -> Mitre {
    let mut ids: Vec<String> = Vec::new();
    let mut pairs: Vec<(String, String)> = Vec::new();
    for element in blocks {
        match block(element) {
            Ok(Block::Ids(more)) => {
                for id in more {
                    push_new(&mut ids, &id);
                }
            }
            Ok(Block::Pair { tactic, technique }) => {
                let pair = (tactic, technique);
                if !pairs.contains(&pair) {
                    pairs.push(pair);
                }
            }
            Err(problem) => diagnostics.push(
                Diagnostic::warning(
                    source,
                    element.span,
                    format!("{problem}, so this `mitre` block is ignored"),
                )
                .with_help("give `id` elements, or exactly one `tacticID` and one `techniqueID`"),
            ),
        }
    }
    if pairs.is_empty() { of_ids(ids) } else { of_pairs(&pairs) }
}

fn block(element: &Element) -> Result<Block, String> {
    let (mut ids, mut tactics, mut techniques) = (Vec::new(), Vec::new(), Vec::new());
    for child in &element.children {
        let list = if child.is("id") {
            &mut ids
        } else if child.is("tacticID") {
            &mut tactics
        } else if child.is("techniqueID") {
            &mut techniques
        } else {
            return Err(format!("unknown element `{}`", child.name));
        };
        if child.content.is_empty() {
            return Err(format!("`{}` is empty", child.name));
        }
        list.push(child.text().into_owned());
    }
    match (ids.is_empty(), tactics.pop(), techniques.pop()) {
        (false, None, None) => Ok(Block::Ids(ids)),
        (true, Some(tactic), Some(technique)) if tactics.is_empty() && techniques.is_empty() => {
            Ok(Block::Pair { tactic, technique })
        }
        (true, None, None) => Err("no technique is named".to_owned()),
        (false, ..) => Err("`id` and pairs are mixed".to_owned()),
        (true, ..) => Err("tactic and technique do not come as one pair".to_owned()),
    }
}

type Technique = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

fn technique(id: &str) -> Option<&'static Technique> {
    TECHNIQUES.binary_search_by(|(known, ..)| (*known).cmp(id)).ok().map(|at| &TECHNIQUES[at])
}

fn push_new(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|known| known == text) {
        list.push(text.to_owned());
    }
}

fn of_ids(ids: Vec<String>) -> Mitre {
    let mut mitre = Mitre::default();
    for (_, name, tactics) in ids.iter().filter_map(|id| technique(id)) {
        for (_, tactic) in *tactics {
            push_new(&mut mitre.tactic, tactic);
        }
        push_new(&mut mitre.technique, name);
    }
    mitre.id = ids;
    mitre
}

fn of_pairs(pairs: &[(String, String)]) -> Mitre {
    let mut mitre = Mitre::default();
    for (tactic, id) in pairs {
        let Some((known, name, tactics)) = technique(id) else { continue };
        let Some((_, tactic)) = tactics.iter().find(|(id, _)| id == tactic) else { continue };
        push_new(&mut mitre.tactic, tactic);
        if !mitre.technique.iter().any(|listed| listed == name) {
            mitre.technique.push((*name).to_owned());
            mitre.id.push((*known).to_owned());
        }
    }
    mitre
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Mitre, usize) {
        let source = Source::new("t", text.as_bytes());
        let roots = tld_xml::parse(&source).unwrap();
        let mut diagnostics = Vec::new();
        let mitre = read(&source, &roots.iter().collect::<Vec<_>>(), &mut diagnostics);
        (mitre, diagnostics.len())
    }

    #[test]
    fn ids_collect_the_tactics_of_all_techniques() {
        let (mitre, problems) = read_text("<mitre><id>T1110</id><id>T1078</id><id>T1110</id></mitre>");
        assert_eq!((mitre.id.join(","), problems), ("T1110,T1078".to_owned(), 0));
        assert_eq!(mitre.tactic.first().map(String::as_str), Some("Credential Access"));
        assert_eq!(mitre.technique, ["Brute Force", "Valid Accounts"]);
    }

    #[test]
    fn a_pair_counts_only_if_the_technique_has_the_tactic() {
        let pair = |tactic: &str| {
            read_text(&format!(
                "<mitre><tacticID>{tactic}</tacticID><techniqueID>T1110</techniqueID></mitre><mitre><id>T1078</id></mitre>"
            ))
        };
        assert_eq!(pair("TA0006").0.technique, ["Brute Force"]);
        assert_eq!(pair("TA0001").0, Mitre::default());
    }

    #[test]
    fn a_broken_block_is_dropped_with_a_warning() {
        for text in [
            "<mitre><id></id></mitre>",
            "<mitre><tacticID>TA0006</tacticID></mitre>",
            "<mitre><id>T1078</id><techniqueID>T1110</techniqueID></mitre>",
            "<mitre><name>x</name></mitre>",
        ] {
            assert_eq!(read_text(text), (Mitre::default(), 1), "{text}");
        }
    }
}
