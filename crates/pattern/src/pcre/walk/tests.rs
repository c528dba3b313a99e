use proptest::prelude::*;
use regex::bytes::{Regex, RegexBuilder};

use super::*;
use crate::pcre::required;

fn both(pattern: &str) -> Option<(Walker, Regex)> {
    let regex = RegexBuilder::new(pattern).unicode(false).build().ok()?;
    let tree = required::tree(pattern, false)?;
    Some((Walker::new(&tree)?, regex))
}

type Answer = Option<(usize, Vec<Option<(usize, usize)>>)>;

fn walked(walker: &Walker, groups: usize, subject: &[u8]) -> Result<Answer, GivenUp> {
    let mut marks = vec![UNSET; 2 * groups];
    let end = walker.find(subject, 0, Some(&mut marks))?;
    assert_eq!(walker.find(subject, 0, None), Ok(end));
    let group = |pair: &[u32]| (pair[1] != UNSET).then(|| (pair[0] as usize, pair[1] as usize));
    Ok(end.map(|end| (end, marks.chunks_exact(2).map(group).collect())))
}

fn wanted(regex: &Regex, subject: &[u8]) -> Answer {
    let found = regex.captures(subject)?;
    let group = |number| found.get(number).map(|group| (group.start(), group.end()));
    Some((group(0)?.1, (1..found.len()).map(group).collect()))
}

/// Patterns of the parts that decoders and rules are written in.
fn pattern() -> impl Strategy<Value = String> {
    let byte = prop::sample::select(vec!["a", "b", "B", "1", ":", ",", " ", r"\n", r"\xE9"]);
    let set = prop::sample::select(vec![
        ".", r"\d", r"\w", r"\S", r"\s", "[^,]", "[^:a]", "[a-c]", "[ab1]", "[aA]", r"[^\n]", "(?s:.)",
    ]);
    let atom = prop_oneof![
        4 => byte.prop_map(str::to_owned),
        4 => set.prop_map(str::to_owned),
        1 => Just("(?i:ab)".to_owned()),
        1 => Just("ab:".to_owned()),
        1 => prop::sample::select(vec![r"\b", r"\B", r"\A", r"\z", "(?m:^)", "(?m:$)"]).prop_map(str::to_owned),
    ];
    let quantifier = prop::sample::select(vec![
        "", "", "", "", "*", "+", "*?", "+?", "?", "??", "{2}", "{1,2}", "{0,3}?", "{2,}",
    ]);
    let inside = atom.prop_recursive(3, 24, 6, move |inner| {
        let inner = (inner, quantifier.clone()).prop_map(|(atom, quantifier)| match quantifier {
            "" => atom,
            quantifier => format!("(?:{atom}){quantifier}"),
        });
        prop_oneof![
            6 => prop::collection::vec(inner.clone(), 1..6).prop_map(|parts| parts.concat()),
            2 => inner.clone().prop_map(|inner| format!("({inner})")),
            1 => prop::collection::vec(inner, 2..4).prop_map(|branches| format!("(?:{})", branches.join("|"))),
        ]
    });
    // A run in front of a text is looked for from the text on.
    let run =
        [r"\s\d+:", r"(\w+):", r"[ab]+, ", r"\d{2,}(?i:ab)", r"[^a][B1]+b", r"(\S)\s+(?i:b)1", "[B1]+b"];
    (prop::option::weighted(0.2, prop::sample::select(run.to_vec())), inside)
        .prop_map(|(run, inside)| format!("{}{inside}", run.unwrap_or_default()))
}

fn subject() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |bytes: &[u8]| prop::sample::select(bytes.to_vec());
    prop_oneof![
        prop::collection::vec(bytes(b"aAbB11:, \n\xe9"), 0..16),
        prop::collection::vec(bytes(b"aab1:"), 0..40),
    ]
}

/// 20 000 patterns in the gate; `TLD_WALK_CASES` sets another number.
fn cases() -> ProptestConfig {
    let cases = std::env::var("TLD_WALK_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_walk_that_ends_has_the_answer_of_the_linear_engine(
        pattern in pattern(),
        subjects in prop::collection::vec(subject(), 1..6),
    ) {
        let Some((walker, regex)) = both(&pattern) else { return Ok(()) };
        for subject in subjects {
            let Ok(answer) = walked(&walker, regex.captures_len() - 1, &subject) else { continue };
            prop_assert_eq!(answer, wanted(&regex, &subject), "{} on {:?}", pattern, String::from_utf8_lossy(&subject));
        }
    }
}

#[test]
fn expressions_of_decoders_are_walked_to_their_end() {
    let line = "Jan 1 00:00:00 fw,%FTD-6-430003: user \"a b\" from 10.0.0.1/22 on interface in to 10.0.0.2/80: done, x=1 y=2";
    for pattern in [
        r"([^%]+)?%(FTD)-([0-7])-([^:\s]+):?\s?((.+)\sfrom\s(\S+)/(\S+)\son\sinterface\s(\S+)\sto\s(\S+)/(\S+):)",
        r"([^%]+)?%(FTD)-([0-7])-([^:\s]+):?\s?(.+)?",
        r"\s\d+:\d+:\d+\s\w+,%\S+\s\d+.\d+.\d+.\d+",
        r".*430003:.*\suser\s([^:\s]+)[:\s]+(.*)",
        r"(?i)USER.+\.(1|2).*?to (\S+)?:",
        r"\A[^,]*,(%\w+-\d+)-(\d+): (user|group) ",
        r"(?:x=(\d) ?|y=(\d) ?){2}\z",
    ] {
        let (walker, regex) = both(pattern).expect("a pattern that can be walked");
        let answer = walked(&walker, regex.captures_len() - 1, line.as_bytes());
        assert_eq!(answer, Ok(wanted(&regex, line.as_bytes())), "{pattern}");
    }
}

#[test]
fn a_walk_without_end_is_given_up() {
    let (walker, _) = both(r"(?:a|a|ab)+(?:b|bc)+(?:a|b)+[a-b]+c").expect("a pattern that can be walked");
    assert_eq!(walker.find(&b"ab".repeat(2_000), 0, None), Err(GivenUp));
}

#[test]
fn a_loop_without_bytes_is_left_to_the_linear_engine() {
    assert!(both("(?:a*)*").is_none());
    assert!(both("(?:a|b*)+c").is_none());
}
