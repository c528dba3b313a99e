use proptest::prelude::*;

use super::*;

/// End of the match and captured texts, or nothing.
fn found(pattern: &str, subject: &[u8]) -> Option<(usize, Vec<Vec<u8>>)> {
    let pcre = Pcre::compile(pattern.as_bytes()).expect("a legal pattern");
    let mut captures = Captures::new();
    let end = pcre.find(Text::new(subject), &mut captures, Known::Nothing)?;
    assert!(pcre.is_match(Text::new(subject)));
    Some((end, captures.iter().map(|range| subject[range].to_vec()).collect()))
}

fn end(pattern: &str, subject: &[u8]) -> Option<usize> {
    found(pattern, subject).map(|(end, _)| end)
}

fn refusal(pattern: &[u8]) -> String {
    Pcre::compile(pattern).expect_err("not a legal pattern").message
}

#[test]
fn groups_end_with_the_last_that_took_part() {
    assert_eq!(found("(x)|(y)|(z)", b"-y"), Some((2, vec![vec![], b"y".to_vec()])));
    assert_eq!(found("(x)(q)?", b"x"), Some((1, vec![b"x".to_vec()])));
}

#[test]
fn a_dollar_also_stands_before_a_last_newline_and_does_not_take_it() {
    assert_eq!(end("ab$", b"ab\n"), Some(2));
    assert_eq!(end("ab\\Z", b"ab\n"), Some(2));
    assert_eq!(end("ab\\z", b"ab\n"), None);
    assert_eq!(end("ab$", b"ab\n\n"), None);
    assert_eq!(end("(?m)ab$", b"ab\ncd"), Some(2));
    assert_eq!(end("(?m)^$", b"ab\n"), None);
}

#[test]
fn escapes_mean_what_pcre2_means() {
    assert_eq!(end("a\\hb", b"a\tb"), Some(3));
    assert_eq!(end("a\\hb", b"afb"), None);
    assert_eq!(end("a\\vb", b"a\nb"), Some(3));
    assert_eq!(end("\\Q.*\\E", b"x.*"), Some(3));
    assert_eq!(end("\\x41\\x{42}\\103\\e", b"ABC\x1b"), Some(4));
    assert_eq!(end("\\N+", b"ab\n"), Some(2));
}

#[test]
fn brackets_in_classes_and_lone_braces_are_literals() {
    assert_eq!(end("[a[b]]", b"[]"), Some(2));
    assert_eq!(end("[a&&z]", b"&"), Some(1));
    assert_eq!(end("[]x]+", b"]x]"), Some(3));
    assert_eq!(end("{\"k\":\\d}", b"{\"k\":1}"), Some(7));
    assert_eq!(end("x{,2}", b"x{,2}"), Some(5));
}

#[test]
fn look_around_and_references_run_on_the_second_engine() {
    assert_eq!(end("^(?!-$).*", b"-"), None);
    assert_eq!(end("^(?=.*x)(?=.*y)", b"..y.x"), Some(0));
    assert_eq!(end("(\\w)\\1", b"abccd"), Some(4));
    assert_eq!(end("(?<n>a)\\k<n>", b"aa"), Some(2));
    assert_eq!(end("a++a", b"aaa"), None);
}

#[test]
fn bytes_are_matched_one_by_one_whatever_they_encode() {
    assert_eq!(end("^..$", "é".as_bytes()), Some(2));
    assert_eq!(
        found("(?=.)(.)\\xA9(?<!x)(z)", b"\xc3\xa9z"),
        Some((3, vec![b"\xc3".to_vec(), b"z".to_vec()]))
    );
    assert_eq!(end("(?i)(?=.)é", "É".as_bytes()), None);
    assert_eq!(end("(?=.)\\w", "é".as_bytes()), None);
}

#[test]
fn a_utf_pattern_reads_code_points_and_refuses_other_bytes() {
    assert_eq!(end("(*UTF)\\N{U+202E}", "a\u{202e}".as_bytes()), Some(4));
    assert_eq!(end("(*UTF)^.$", "é".as_bytes()), Some(2));
    assert_eq!(end("(*UTF)a", b"a\xff"), None);
}

#[test]
fn options_reach_as_far_as_their_group() {
    assert_eq!(end("(a(?i)b|c)d", b"Cd"), Some(2));
    assert_eq!(end("(a(?i)b)d", b"aBD"), None);
    assert_eq!(end("(?x) a b # c", b"ab"), Some(2));
    assert_eq!(end("(?U)a+", b"aaa"), Some(1));
    assert_eq!(end("(?s).(?-s).", b"\n\n"), None);
}

#[test]
fn what_cannot_be_compiled_is_refused_with_a_reason() {
    assert_eq!(refusal(b"ab("), "missing `)` at offset 3");
    assert_eq!(refusal(b"a**"), "a quantifier follows nothing that it could repeat at offset 3");
    assert_eq!(refusal(b"[z-a]"), "a range in a class is out of order at offset 4");
    assert_eq!(refusal(b"\\y"), "unknown escape `\\y` at offset 2");
    assert_eq!(refusal(b"(a)\\2"), "reference to a group that does not exist at offset 5");
    assert!(refusal(b"((\\w{60000}){60000}){60000}").contains("limit"));
    assert!(Pcre::compile(&b"(".repeat(5000)).is_err());
}

#[test]
fn literals_that_every_match_holds_are_found() {
    let literals = |pattern: &[u8]| Pcre::compile(pattern).expect("legal").required_literals();
    assert_eq!(literals(b"^Failed \\S+ for"), vec![b"failed ".to_vec()]);
    assert_eq!(literals(b"(?i)Select\\s"), vec![b"select".to_vec()]);
    assert_eq!(literals(b"abc|def$"), vec![b"abc".to_vec(), b"def".to_vec()]);
    assert_eq!(literals(b"a?"), Vec::<Vec<u8>>::new());
    assert_eq!(literals(b"(?=a)b"), Vec::<Vec<u8>>::new());
}

/// Patterns of parts on which both engines must agree.
fn shared_pattern() -> impl Strategy<Value = String> {
    let atoms = vec![
        "a",
        "B",
        "\\.",
        ".",
        "\\d",
        "\\w",
        "\\S",
        "[^a]",
        "[a-c]",
        "[[:alpha:]]",
        "\\xE9",
        "\\h",
        "\\b",
        "^",
        "$",
        "(a)",
        "(?:b|a)",
        "(?i)",
        "(?m)",
        "|",
    ];
    let quantifiers = vec!["", "", "", "+", "*?", "?", "{1,2}"];
    let part = (prop::sample::select(atoms), prop::sample::select(quantifiers));
    prop::collection::vec(part, 0..6).prop_map(|parts| {
        let mut pattern = String::new();
        for (atom, quantifier) in parts {
            pattern.push_str(atom);
            if !matches!(atom, "\\b" | "^" | "$" | "(?i)" | "(?m)" | "|") {
                pattern.push_str(quantifier);
            }
        }
        pattern
    })
}

fn subject() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"aAbB1. \n\xe9\xc3\xa9".to_vec()), 0..10)
}

/// What only the backtracking engine knows.
const LOOKS: [&str; 8] = ["(?=a)", "(?!b)", "(?<=a)", "(?<!a|b)", "(?=.*1)", "(?>a+)", "(?!^a)", "(?<![.])"];

/// Lines that make a search with look-around begin anew at each of their places.
#[test]
fn a_long_line_costs_little_or_ends_the_event_s_searches_and_is_counted() {
    let long = |unit: &str| unit.repeat(65_000 / unit.len()).into_bytes();
    for pattern in [r"(?<!x)\w+ from", r"(?>\w+)=1", r"(?=.*from)(?=.*zz)q", r"(?!\s)[^:]*: x", r"(\w+) \1 q"]
    {
        let pcre = Pcre::compile(pattern.as_bytes()).expect("legal");
        budget::begin();
        assert!(
            !pcre.is_match(Text::new(&long("a"))) && !pcre.is_match(Text::new(&long("a b"))),
            "{pattern}"
        );
        assert_eq!(budget::ended(), 0, "{pattern}: places where it cannot match are passed over");
    }
    let hard = Pcre::compile(br"(?!\s)[^:]*: x(?!y)").expect("legal");
    let forged = [long("a"), b": xy".to_vec()].concat();
    budget::begin();
    assert!(!hard.is_match(Text::new(&forged)));
    assert_eq!(budget::ended(), 1);
    assert!(!hard.is_match(Text::new(b"a: xz")), "the event has used up its budget");
    assert_eq!(budget::ended(), 2);
    budget::begin();
    assert!(hard.is_match(Text::new(b"a: xz")), "the next one has its own");
    let late = [long("a;"), b" b=1".to_vec()].concat();
    let found = Pcre::compile(br"(?<=\s)(\w+)=\d").expect("legal");
    assert!(found.is_match(Text::new(&late)), "what stands at the end of a long line is found");
    assert_eq!(budget::ended(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_answer_the_same(pattern in shared_pattern(), subject in subject()) {
        let linear = Pcre::compile(pattern.as_bytes()).expect("made of legal parts");
        let source = translate(pattern.as_bytes(), Target::Backtracking).expect("it compiled before");
        let backtracking = Pcre {
            walker: None,
            serves: Serves::None,
            rest: Box::new(Rest {
                linear: None,
                backtracking: Some(Backtracking::new(source.source).expect("made of legal parts")),
                pattern: linear.pattern().into(),
                required: Vec::new(),
                beginning: Beginning::default(),
            }),
            ..linear
        };
        let mut captures = (Captures::new(), Captures::new());
        let text = Text::new(&subject);
        let wanted = backtracking.find(text, &mut captures.1, Known::Nothing);
        prop_assert_eq!(linear.find(text, &mut captures.0, Known::Nothing), wanted);
        prop_assert_eq!(captures.0, captures.1);
        let known = match (linear.single(), subject.to_ascii_lowercase()) {
            (b"", _) => Known::Nothing,
            (word, folded) => memchr::memmem::find(&folded, word).map_or(Known::Absent, Known::First),
        };
        prop_assert_eq!(linear.end(text, known), wanted);
        prop_assert!(!linear.is_match(text) || linear.beginning().allows_text(text.bytes()));
        if !linear.rest.required.is_empty() && linear.is_match(text) {
            prop_assert!(linear.rest.required.iter().any(|word| crate::literal::contains(&subject, word)));
        }
    }

    #[test]
    fn looking_for_possible_places_first_changes_no_answer(
        parts in prop::collection::vec((prop::sample::select(LOOKS.to_vec()), shared_pattern()), 1..4),
        subject in subject(),
    ) {
        let pattern: String = parts.into_iter().flat_map(|(look, plain)| [look.to_owned(), plain]).collect();
        let source = translate(pattern.as_bytes(), Target::Backtracking).expect("made of legal parts").source;
        let Ok(seeking) = build_backtracking(&source, 100_000) else { return Ok(()) };
        let plain = fancy_regex::RegexBuilder::new(&source).backtrack_limit(100_000).build().expect("as before");
        let subject: String = subject.iter().copied().map(char::from).collect();
        let places = |regex: &fancy_regex::Regex| {
            let found = regex.captures(&subject).expect("within the limit")?;
            Some((0..found.len()).map(|at| found.get(at).map(|group| group.range())).collect::<Vec<_>>())
        };
        prop_assert_eq!(places(&seeking), places(&plain), "{}", source);
    }

    #[test]
    fn any_bytes_compile_and_match_without_panic(pattern: Vec<u8>, subject: Vec<u8>) {
        if let Ok(pcre) = Pcre::compile(&pattern) {
            let _ = pcre.find(Text::new(&subject), &mut Captures::new(), Known::Nothing);
        }
    }

    #[test]
    fn any_syntax_compiles_and_matches_without_panic(
        pattern in "[\\\\(\\[\\]){}?*+|^$<>=!:PQENUKRgkxocabi0-9,.#'&-]{0,16}",
        subject in subject(),
    ) {
        if let Ok(pcre) = Pcre::compile(pattern.as_bytes()) {
            let _ = pcre.find(Text::new(&subject), &mut Captures::new(), Known::Nothing);
        }
    }
}
