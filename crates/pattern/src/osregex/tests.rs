use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::program::Alternative;
use super::*;

/// Place and captured texts, or nothing.
fn found(pattern: &str, subject: &str) -> Option<(isize, Vec<String>)> {
    let regex = OsRegex::compile(pattern.as_bytes()).expect("a legal pattern");
    let mut captures = Captures::new();
    let place = regex.find(Text::new(subject.as_bytes()), &mut captures, |_| Known::Nothing)?;
    let texts = captures.iter().map(|range| subject[range].to_owned()).collect();
    Some((place, texts))
}

fn place(pattern: &str, subject: &str) -> Option<isize> {
    found(pattern, subject).map(|(place, _)| place)
}

#[test]
fn a_program_lies_in_eleven_words() {
    assert_eq!((size_of::<Program>(), size_of::<OsRegex>()), (88, 96));
}

fn code(pattern: &[u8]) -> Option<u16> {
    OsRegex::compile(pattern).err().map(|error| error.code)
}

#[test]
fn literals_are_found_anywhere_in_any_case() {
    assert_eq!(place("Root", "su: rOOT now"), Some(7));
    assert_eq!(place("root", "roo"), None);
}

#[test]
fn quantifiers_behind_literals_and_marks_are_literals() {
    assert_eq!(place("o+", "foo"), None);
    assert_eq!(place("o+", "fo+"), Some(2));
    assert_eq!(place("x.y[?", "x.y[?"), Some(4));
}

#[test]
fn unknown_and_trailing_escapes_are_error_six() {
    for pattern in [&b"a\\"[..], b"\\n", b"\\[", b"\\-", b"x\\\"y"] {
        assert_eq!(code(pattern), Some(6));
    }
}

#[test]
fn bad_parentheses_are_error_seven() {
    for pattern in [&b"(x"[..], b"x)", b"((x))", b"(x|y)", b"(x)) y"] {
        assert_eq!(code(pattern), Some(7));
    }
}

#[test]
fn a_pattern_beyond_the_limit_is_error_three() {
    assert_eq!(code(&vec![b'a'; crate::PATTERN_LIMIT]), None);
    assert_eq!(code(&vec![b'a'; crate::PATTERN_LIMIT + 1]), Some(3));
}

#[test]
fn classes_hold_what_the_contract_says_and_no_more() {
    assert_eq!(place("\\s", "\t"), None);
    assert_eq!(place("\\t", "\t"), Some(0));
    for byte in ["@", "_", "-", "z", "7"] {
        assert_eq!(place("\\w", byte), Some(0));
    }
    for byte in ["/", "\\", "^", "_", "@", "~", "`"] {
        assert_eq!(place("\\p", byte), None);
    }
    assert_eq!(place("\\.", "\n"), Some(0));
}

#[test]
fn bytes_beyond_ascii_are_taken_by_classes_and_never_by_literals() {
    assert_eq!(place("ü", "ü"), None);
    assert_eq!(place("^\\S\\W$", "ü"), Some(1));
}

#[test]
fn a_run_stops_where_the_next_item_accepts_the_byte() {
    assert_eq!(place("\\.+:", "a:b:"), Some(1));
    assert_eq!(place("\\.+:$", "a:b:"), Some(3));
    assert_eq!(place("\\w+\\s\\w+", "one  two"), None);
    assert_eq!(place("\\w+zq", "yzzq"), None);
    assert_eq!(place("\\w+zq", "yzzzq"), Some(4));
}

#[test]
fn the_reported_place_is_not_always_the_last_byte() {
    assert_eq!(place("\\d+", "4711"), Some(0));
    assert_eq!(place("\\d+", "4711;"), Some(4));
    assert_eq!(place("id\\s*$", "id   "), Some(1));
    assert_eq!(place("^$", ""), Some(0));
    assert_eq!(place("\\d*", "x"), Some(-1));
}

#[test]
fn groups_give_their_texts() {
    assert_eq!(found("for (\\S+):(\\d+)", "for h:x:22"), Some((8, vec!["h:x".into(), "22".into()])));
    assert_eq!(found("id=(\\d*);", "id=;"), Some((3, vec![String::new()])));
    assert_eq!(found("id=(\\w*)", "id="), Some((2, vec![])));
}

#[test]
fn touching_and_empty_groups_compare_the_second_mark_as_a_parenthesis() {
    assert_eq!(found("(x)(y)", "xy"), None);
    assert_eq!(found("(x)(y)", "x(y"), Some((2, vec!["x".into()])));
    assert_eq!(found("()x", "x"), None);
}

#[test]
fn the_first_alternative_that_succeeds_decides() {
    assert_eq!(found("(\\d+)|(\\w+)", "no42"), Some((2, vec!["42".into()])));
    assert_eq!(place("qqq|", ""), Some(0));
}

#[test]
fn nothing_behind_the_first_nul_is_seen() {
    let regex = OsRegex::compile(b"b$").expect("legal");
    assert!(regex.is_match(b"ab\0c"));
    assert!(!OsRegex::compile(b"c").expect("legal").is_match(b"ab\0c"));
}

#[test]
fn required_literals_leave_out_the_byte_that_a_run_may_leave_out() {
    let literals = |pattern: &[u8]| OsRegex::compile(pattern).expect("legal").required_literals();
    assert_eq!(literals(b"Failed \\w+ for"), vec![b"failed ".to_vec()]);
    assert_eq!(literals(b"\\w+\\d7"), Vec::<Vec<u8>>::new());
    assert_eq!(literals(b"ab|c\\d+def"), vec![b"ab".to_vec(), b"def".to_vec()]);
    assert_eq!(literals(b"ab|\\d"), Vec::<Vec<u8>>::new());
}

/// Patterns of all pieces, and patterns of runs alone, which fill the four slots and come back.
fn pattern() -> impl Strategy<Value = Vec<u8>> {
    let literal = ["a", "a", "B", "1", " ", ":", "(", "\u{e9}", "+", "*", "^", "$"];
    let class = [
        "\\d", "\\w", "\\w", "\\s", "\\.", "\\S", "\\W", "\\D", "\\p", "\\t", "\\(", "\\$", "\\|", "\\<",
        "\\\\",
    ];
    let run = ["\\d+", "\\w+", "\\.+", "\\s+", "\\S+", "\\d*", "\\w*", "\\.*", "\\s*", "\\S*"];
    let group = ["(\\w+)", "(a)", "(\\d*)", "(\\.+)", "(\\S+)", "()", "(\\w+a)", "(\\d)", "|", "(", ")"];
    let mixed = prop_oneof![
        6 => prop::sample::select(literal.to_vec()),
        6 => prop::sample::select(class.to_vec()),
        5 => prop::sample::select(run.to_vec()),
        3 => prop::sample::select(group.to_vec()),
    ];
    let runs = prop_oneof![
        3 => prop::sample::select(vec!["\\.+", "\\w+", "\\.*", "\\w*", "(\\w+)", "(\\.*)"]),
        3 => prop::sample::select(vec!["a", "b", "\\w", "\\d", "1"]),
    ];
    let pieces = prop_oneof![prop::collection::vec(mixed, 0..7), prop::collection::vec(runs, 4..14)];
    (prop::bool::weighted(0.2), pieces, prop::bool::weighted(0.2)).prop_map(|(begin, pieces, end)| {
        let mut pattern = String::from(if begin { "^" } else { "" });
        pattern.extend(pieces);
        if end {
            pattern.push('$');
        }
        pattern.into_bytes()
    })
}

fn subject() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        8 => prop::sample::select(b"aAbB11  ::((+*^$".to_vec()),
        1 => prop::sample::select(b"\t\n|)\xc3\xa9".to_vec()),
    ];
    let word = prop::sample::select(b"aaaab1".to_vec());
    prop_oneof![prop::collection::vec(byte, 0..14), prop::collection::vec(word, 3..24)]
}

fn by_reference(alternatives: &[Alternative], subject: &[u8], capturing: bool) -> Option<(isize, Captures)> {
    let success = alternatives.iter().find_map(|one| reference::run(one, subject, capturing))?;
    let mut captures = Captures::new();
    let marks: Vec<usize> = success.marks.iter().map(|mark| mark.unwrap_or(UNSET)).collect();
    collect(&marks, &mut captures).then_some((success.place, captures))
}

/// 50 000 pairs in the gate; `TLD_OSREGEX_CASES` sets another number.
#[test]
fn the_serving_matcher_agrees_with_the_plain_procedure() {
    let cases =
        std::env::var("TLD_OSREGEX_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(50_000);
    let config =
        Config { cases, max_global_rejects: u32::MAX, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(pattern(), prop::collection::vec(subject(), 1..4)), |(pattern, subjects)| {
            let Ok(regex) = OsRegex::compile(&pattern) else { return Ok(()) };
            let alternatives = program::parse(&pattern).expect("it compiled before");
            let literals = regex.required_literals();
            for subject in subjects {
                let mut captures = Captures::new();
                let text = Text::new(&subject);
                let nothing = |_| Known::Nothing;
                let served = regex.find(text, &mut captures, nothing).map(|place| (place, captures));
                prop_assert_eq!(&served, &by_reference(&alternatives, &subject, regex.has_groups()));
                let folded = subject.to_ascii_lowercase();
                let words: Vec<&[u8]> = regex.by_alternative().collect();
                let known = |number: usize| match words[number] {
                    b"" => Known::Nothing,
                    word => memmem::find(&folded, word).map_or(Known::Absent, Known::First),
                };
                let mut captures = Captures::new();
                let knowing = regex.find(text, &mut captures, known).map(|place| (place, captures));
                prop_assert_eq!(&knowing, &served);
                let place = regex.place(text, nothing);
                prop_assert_eq!(regex.place(text, known), place);
                if served.is_some() || place.is_some() {
                    prop_assert!(regex.beginning().allows_text(&subject));
                }
                prop_assert_eq!(place, by_reference(&alternatives, &subject, false).map(|(place, _)| place));
                if !literals.is_empty() && (served.is_some() || place.is_some()) {
                    prop_assert!(literals.iter().any(|word| crate::literal::contains(&subject, word)));
                }
            }
            Ok(())
        })
        .expect("both agree");
}

proptest! {
    #[test]
    fn any_bytes_compile_and_match_without_panic(pattern: Vec<u8>, subject: Vec<u8>) {
        if let Ok(regex) = OsRegex::compile(&pattern) {
            let mut captures = Captures::new();
            let _ = regex.find(Text::new(&subject), &mut captures, |_| Known::Nothing);
            prop_assert!(captures.iter().all(|range| range.start <= range.end && range.end <= subject.len()));
        }
    }
}
