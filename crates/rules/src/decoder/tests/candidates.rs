//! Decoders that are left out unasked: with them and without them the answer is the same.

use proptest::prelude::*;

use super::{DecoderOptions, Decoders, Scratch, event};
use crate::predecode::{HostNames, predecode};

/// A prematch of some engine, written so that it is legal XML.
fn prematch() -> impl Strategy<Value = String> {
    let osregex = prop_oneof![
        4 => prop::sample::select(vec!["abcd", "bcd", "cd", "[", ":", "1", "%", " ", "d ab"]),
        2 => prop::sample::select(vec!["\\w", "\\d", "\\s", "\\w+", "\\d+", "\\s+", "\\S+", "\\.+", "\\d*"]),
    ];
    let osregex = (any::<bool>(), prop::collection::vec(osregex, 1..5), prop::option::of("[|]\\^?(abcd|b1)"));
    let osregex = osregex.prop_map(|(anchored, parts, other)| {
        let anchor = if anchored { "^" } else { "" };
        format!("<prematch>{anchor}{}{}</prematch>", parts.concat(), other.unwrap_or_default())
    });
    let pcre = prop_oneof![
        3 => prop::sample::select(vec!["abcd", "b", "[ab]", "(?:a|bc)", "1", ":"]),
        2 => prop::sample::select(vec!["\\w+", "\\d{2}", "[^:]*", "(?:a|b)?", ".*"]),
    ];
    let pcre = (prop::sample::select(vec!["", "^", "(?i)^", "(?i)"]), prop::collection::vec(pcre, 1..4));
    let pcre = pcre
        .prop_map(|(begin, parts)| format!("<prematch type=\"pcre2\">{begin}{}</prematch>", parts.concat()));
    prop_oneof![2 => osregex, 1 => pcre]
}

fn log() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["abcd", "ABC", "bcd", "cd", "[", ":", "1", "22", "%", " ", "\0"]);
    (any::<bool>(), prop::collection::vec(part, 0..8)).prop_map(|(program, parts)| {
        let header = if program { "Dec 29 10:00:01 gate prog: " } else { "" };
        format!("{header}{}", parts.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shortened_search_finds_the_decoder_and_the_fields_of_the_whole_one(
        tops in prop::collection::vec((any::<bool>(), prematch(), prop::collection::vec(prematch(), 0..4)), 1..70),
        logs in prop::collection::vec(log(), 1..8),
    ) {
        let mut xml = String::new();
        for (number, (program, prematch, children)) in tops.iter().enumerate() {
            let program = if *program { "<program_name>^prog</program_name>" } else { "" };
            xml += &format!("<decoder name=\"t{number}\">{program}{prematch}</decoder>");
            for (child, prematch) in children.iter().enumerate() {
                xml += &format!("<decoder name=\"t{number}c{child}\"><parent>t{number}</parent>{prematch}\
                    <regex offset=\"after_prematch\">(\\w+)</regex><order>id</order></decoder>");
            }
        }
        let mut diagnostics = Vec::new();
        let source = tld_xml::Source::new("own.xml", xml.as_bytes());
        let decoders = Decoders::load(&[source], &DecoderOptions::default(), &mut diagnostics);
        prop_assert!(diagnostics.is_empty(), "{}", diagnostics[0].render(false));
        let hosts = HostNames::new("h");
        let mut scratch = Scratch::new();
        for log in logs {
            let event = event(b'1', &log);
            let mut decode = |whole: bool| {
                let mut decoded = predecode(&event, &hosts);
                let mut steps = Vec::new();
                decoders.decode(&mut decoded, &mut scratch, whole.then_some(&mut steps));
                (decoded.decoder, decoded.field(crate::StaticField::Id).map(<[u8]>::to_vec))
            };
            prop_assert_eq!(decode(false), decode(true), "{}", log);
        }
    }
}
