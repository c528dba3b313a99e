//! Which decoder an event gets, and where its expressions start.

use tld_model::Event;

use super::{Scratch, decode, event, loaded};
use crate::decoder::DecoderTest;
use crate::predecode::{HostNames, predecode};

const DATE: &str = "Dec 29 10:00:01 gate ";

fn check(xml: &str, cases: &[(&str, &str, &str)]) {
    let decoders = loaded(xml);
    for (line, name, fields) in cases {
        let outcome = decode(&decoders, line);
        assert_eq!((outcome.decoder.as_str(), outcome.listed().as_str()), (*name, *fields), "{line}");
    }
}

fn parent_of(xml: &str, line: &str) -> Option<String> {
    let decoders = loaded(xml);
    let event: Event = event(b'1', line);
    let hosts = HostNames::new("h");
    let mut decoded = predecode(&event, &hosts);
    decoders.decode(&mut decoded, &mut Scratch::new(), None);
    decoded.decoder.and_then(|id| decoders.info(id).parent.clone())
}

#[test]
fn a_program_chooses_among_its_own_list_only() {
    let xml = r#"<decoder name="n"><prematch>text</prematch></decoder>
                 <decoder name="p"><program_name>^prog</program_name></decoder>"#;
    check(
        xml,
        &[
            ("Dec 29 10:00:01 gate prog: text", "p", ""),
            ("Dec 29 10:00:01 gate other: text", "", ""),
            ("text", "n", ""),
            ("none", "", ""),
        ],
    );
}

#[test]
fn the_first_decoder_that_fits_is_final() {
    let xml = r#"<decoder name="a"><prematch>^one</prematch></decoder>
                 <decoder name="a-child"><parent>a</parent><prematch>never</prematch></decoder>
                 <decoder name="b"><prematch>^one two</prematch></decoder>"#;
    check(xml, &[("one two", "a", "")]);
}

#[test]
fn a_program_and_a_prematch_must_both_fit() {
    let xml = r#"<decoder name="a"><program_name>^prog</program_name><prematch>^one</prematch></decoder>
                 <decoder name="b"><program_name>^prog</program_name></decoder>"#;
    let lines = [format!("{DATE}prog: one"), format!("{DATE}prog: two")];
    check(xml, &[(&lines[0], "a", ""), (&lines[1], "b", "")]);
}

#[test]
fn offsets_count_from_the_right_place() {
    let decoder = |offset: &str| {
        format!(
            r#"<decoder name="p"><prematch>^key=</prematch></decoder>
               <decoder name="c"><parent>p</parent><prematch offset="after_parent">^a1 key=</prematch>
                 <regex offset="{offset}">key=(\w+)</regex><order>url</order></decoder>
               <decoder name="c"><parent>p</parent><regex offset="after_regex">key=(\w+)</regex>
                 <order>data</order></decoder>"#
        )
    };
    let line = "key=a1 key=b2 key=c3 key=d4";
    check(&decoder("after_parent"), &[(line, "p", "url=b2 data=c3")]);
    check(&decoder("after_prematch"), &[(line, "p", "url=c3 data=d4")]);
}

#[test]
fn a_regex_without_offset_starts_at_the_beginning() {
    let xml = r#"<decoder name="p"><prematch>^key=</prematch></decoder>
                 <decoder name="c"><parent>p</parent><regex>key=(\w+)</regex><order>url</order></decoder>"#;
    check(xml, &[("key=a key=b", "p", "url=a")]);
}

#[test]
fn a_lone_decoders_after_prematch_is_behind_its_own() {
    let xml = r#"<decoder name="p"><prematch>^key=a </prematch>
                 <regex offset="after_prematch">^key=(\w+)</regex><order>url</order></decoder>"#;
    check(xml, &[("key=a key=b", "p", "url=b")]);
}

#[test]
fn siblings_of_one_name_are_all_tried() {
    let xml = r#"<decoder name="p"><prematch>^log </prematch></decoder>
                 <decoder name="c"><parent>p</parent><regex>src=(\S+)</regex><order>srcip</order></decoder>
                 <decoder name="c"><parent>p</parent><regex>dst=(\S+)</regex><order>dstip</order></decoder>
                 <decoder name="c"><parent>p</parent><regex>url=(\S+)</regex><order>url</order></decoder>
                 <decoder name="d"><parent>p</parent><regex>id=(\S+)</regex><order>id</order></decoder>"#;
    check(
        xml,
        &[
            ("log url=/ dst=2 src=1 id=5", "p", "srcip=1 dstip=2 url=/"),
            ("log url=/ id=5", "p", "url=/"),
            ("log src=1", "p", "srcip=1"),
        ],
    );
}

#[test]
fn a_failing_prematch_skips_its_whole_chain() {
    let xml = r#"<decoder name="p"><prematch>^log </prematch></decoder>
                 <decoder name="c"><parent>p</parent><prematch>one</prematch><regex>a=(\S+)</regex>
                   <order>id</order></decoder>
                 <decoder name="c"><parent>p</parent><regex>b=(\S+)</regex><order>url</order></decoder>
                 <decoder name="d"><parent>p</parent><prematch>two</prematch><regex>b=(\S+)</regex>
                   <order>data</order></decoder>"#;
    check(xml, &[("log one a=1 b=2", "p", "id=1 url=2"), ("log two a=1 b=2", "p", "data=2")]);
}

#[test]
fn a_child_without_prematch_ends_the_search_and_keeps_the_parents_type() {
    let xml = r#"<decoder name="p"><prematch>^log </prematch><type>ids</type></decoder>
                 <decoder name="c"><parent>p</parent><type>firewall</type><use_own_name>true</use_own_name>
                   <regex>a=(\S+)</regex><order>id</order></decoder>
                 <decoder name="d"><parent>p</parent><prematch>b</prematch><type>squid</type></decoder>"#;
    let decoders = loaded(xml);
    let event = event(b'1', "log b=1");
    let hosts = HostNames::new("h");
    let mut decoded = predecode(&event, &hosts);
    decoders.decode(&mut decoded, &mut Scratch::new(), None);
    assert_eq!(decoded.category, crate::Category::Ids);
    assert_eq!(decoded.decoder.map(|id| decoders.info(id).name.as_str()), Some("p"));
}

#[test]
fn a_child_with_prematch_becomes_the_events_decoder() {
    let own = |own: &str| {
        format!(
            r#"<decoder name="p"><prematch>^log </prematch></decoder>
               <decoder name="c"><parent>p</parent><prematch>one</prematch>{own}</decoder>"#
        )
    };
    check(&own(""), &[("log one", "p", "")]);
    check(&own("<use_own_name>true</use_own_name>"), &[("log one", "c", "")]);
    assert_eq!(parent_of(&own(""), "log one").as_deref(), Some("p"));
    assert_eq!(parent_of(&own(""), "log two"), None);
}

#[test]
fn a_child_hangs_under_every_parent_of_the_name() {
    let xml = r#"<decoder name="p"><prematch>^log </prematch></decoder>
                 <decoder name="p"><program_name>^prog</program_name></decoder>
                 <decoder name="c"><parent>p</parent><regex>a=(\S+)</regex><order>id</order></decoder>"#;
    let line = format!("{DATE}prog: a=2");
    check(xml, &[("log a=1", "p", "id=1"), (&line, "p", "id=2")]);
}

#[test]
fn groups_beyond_the_order_are_dropped_and_missing_ones_leave_fields_alone() {
    let xml = r#"<decoder name="p"><prematch>^log </prematch><regex>a=(\w+) b=(\w+)|a=(\w+)</regex>
                 <order>id</order></decoder>"#;
    check(xml, &[("log a=1 b=2", "p", "id=1"), ("log a=1", "p", "id=1")]);
    let xml = r#"<decoder name="p"><prematch>^log </prematch><regex>a=(\w+)</regex>
                 <order>id, url</order></decoder>"#;
    check(xml, &[("log a=1 b=2", "p", "id=1")]);
}

#[test]
fn dynamic_fields_keep_their_order_and_names() {
    let xml = r#"<decoder name="p"><prematch>^log </prematch><regex type="pcre2">(\w+) (\w*);(\w+)$</regex>
                 <order>z.b, Name, user</order></decoder>"#;
    check(
        xml,
        &[
            ("log one two;three", "p", "dstuser=three z.b=one Name=two"),
            ("log one ;x", "p", "dstuser=x z.b=one Name="),
        ],
    );
}

#[test]
fn a_trace_tells_every_test() {
    let decoders = loaded(
        r#"<decoder name="a"><prematch>^x</prematch></decoder>
           <decoder name="b"><prematch>^log </prematch></decoder>
           <decoder name="c"><parent>b</parent><prematch>no</prematch></decoder>
           <decoder name="d"><parent>b</parent><regex>(\d+)</regex><order>id</order></decoder>"#,
    );
    let event = event(b'1', "log 7 ");
    let hosts = HostNames::new("h");
    let mut decoded = predecode(&event, &hosts);
    let mut steps = Vec::new();
    decoders.decode(&mut decoded, &mut Scratch::new(), Some(&mut steps));
    let told: Vec<_> =
        steps.iter().map(|s| (decoders.info(s.decoder).own_name.as_str(), s.what, s.matched)).collect();
    assert_eq!(
        told,
        [
            ("a", DecoderTest::Prematch, false),
            ("b", DecoderTest::Prematch, true),
            ("b", DecoderTest::Selected, true),
            ("c", DecoderTest::Prematch, false),
            ("d", DecoderTest::Regex, true),
        ]
    );
}

#[test]
fn buffers_of_other_decoders_are_not_believed() {
    let (first, second) = (
        loaded(r#"<decoder name="a"><program_name>^prog</program_name></decoder>"#),
        loaded(r#"<decoder name="b"><program_name>^other</program_name></decoder>"#),
    );
    let event = event(b'1', "Dec 29 10:00:01 gate prog: x");
    let hosts = HostNames::new("h");
    let mut scratch = Scratch::new();
    let mut names = Vec::new();
    for decoders in [&first, &second, &first] {
        let mut decoded = predecode(&event, &hosts);
        decoders.decode(&mut decoded, &mut scratch, None);
        names.push(decoded.decoder.is_some());
    }
    assert_eq!(names, [true, false, true]);
}
