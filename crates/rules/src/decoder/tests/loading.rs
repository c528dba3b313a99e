//! What decoder files may say, and how a mistake is told.

use tld_xml::Source;

use super::{decode, load, loaded};
use crate::decoder::{DecoderOptions, Decoders, FtsField};
use crate::{Category, StaticField};

fn errors(xml: &str) -> Vec<String> {
    let (_, diagnostics) = load(xml);
    diagnostics.iter().filter(|problem| problem.is_error()).map(|problem| problem.message.clone()).collect()
}

fn warnings(xml: &str) -> usize {
    let (_, diagnostics) = load(xml);
    assert!(diagnostics.iter().all(|problem| !problem.is_error()), "{xml}: {diagnostics:?}");
    diagnostics.len()
}

#[test]
fn every_forbidden_form_is_one_error() {
    let p = r#"<decoder name="p"><prematch>x</prematch></decoder>"#;
    let r = "<regex>(a)</regex><order>id</order>";
    let cases = [
        r#"<rule id="1"/>"#.to_owned(),
        "<decoder><prematch>x</prematch></decoder>".into(),
        r#"<decoder name="a" id="1"><prematch>x</prematch></decoder>"#.into(),
        r#"<decoder name="a"><type>ids</type></decoder>"#.into(),
        r#"<decoder name="a"><prematch>x</prematch><odd>y</odd></decoder>"#.into(),
        r#"<decoder name="a"><prematch>x</prematch><Type>ids</Type></decoder>"#.into(),
        r#"<decoder name="a"><prematch>x</prematch><type>IDS</type></decoder>"#.into(),
        r#"<decoder name="a"><prematch>x</prematch><order>id</order></decoder>"#.into(),
        r#"<decoder name="a"><prematch>x</prematch><regex>(a)</regex></decoder>"#.into(),
        r#"<decoder name="a"><prematch>x</prematch><fts>id</fts></decoder>"#.into(),
        format!(r#"<decoder name="a"><prematch>x</prematch>{r}<fts>other</fts></decoder>"#),
        r#"<decoder name="a"><prematch>x\y</prematch></decoder>"#.into(),
        r#"<decoder name="a"><prematch type="pcre2">(</prematch></decoder>"#.into(),
        r#"<decoder name="a"><prematch offset="after_parent">x</prematch></decoder>"#.into(),
        format!(r#"{p}<decoder name="a"><parent>p</parent><prematch offset="after_regex">x</prematch></decoder>"#),
        format!(r#"<decoder name="a"><parent>none</parent>{r}</decoder>"#),
        format!(
            r#"{p}<decoder name="a"><parent>p</parent><regex offset="after_prematch">(a)</regex><order>id</order></decoder>"#
        ),
        format!(
            r#"{p}<decoder name="a"><parent>p</parent><regex offset="after_regex">(a)</regex><order>id</order></decoder>"#
        ),
        r#"<decoder name="a"><prematch>x</prematch><regex offset="after_regex">(a)</regex><order>id</order></decoder>"#
            .into(),
        r#"<decoder name="a"><prematch>x</prematch><regex offset="after_parent">(a)</regex><order>id</order></decoder>"#
            .into(),
        r#"<decoder name="a"><prematch>x</prematch><plugin_decoder>Odd</plugin_decoder></decoder>"#.into(),
        r#"<decoder name="a"><prematch>x</prematch><plugin_decoder offset="odd">JSON_Decoder</plugin_decoder></decoder>"#
            .into(),
        format!(r#"<decoder name="a"><prematch>x</prematch>{r}<plugin_decoder>PF_Decoder</plugin_decoder></decoder>"#),
        format!(r#"{p}<decoder name="c"><parent>p</parent>{r}</decoder><decoder name="c"><parent>p</parent><prematch>y</prematch>{r}</decoder>"#),
        format!(r#"{p}<decoder name="c"><parent>p</parent>{r}</decoder><decoder name="c"><parent>p</parent>{r}<fts>id</fts></decoder>"#),
        format!(r#"{p}<decoder name="c"><parent>p</parent><prematch>y</prematch></decoder><decoder name="c"><parent>p</parent>{r}</decoder>"#),
        format!(r#"{p}<decoder name="c"><parent>p</parent>{r}</decoder><decoder name="d"><parent>c</parent>{r}</decoder>"#),
        "<decoder name=\"a\"><prematch>x</prematch>".into(),
    ];
    for xml in cases {
        assert_eq!(errors(&xml).len(), 1, "{xml}: {:?}", errors(&xml));
    }
}

#[test]
fn an_order_must_stay_below_the_limit() {
    let order = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("f{n}")).collect();
        format!(
            r#"<decoder name="a"><prematch>x</prematch><regex>(a)</regex><order>{}</order></decoder>"#,
            names.join(",")
        )
    };
    assert_eq!(errors(&order(255)).len(), 0);
    assert_eq!(errors(&order(256)).len(), 1);
}

#[test]
fn what_the_contract_warns_about_still_loads() {
    let cases = [
        r#"<decoder name="a"><prematch type="osmatch">x</prematch></decoder>"#,
        r#"<decoder name="a"><program_name type="odd">x</program_name></decoder>"#,
        r#"<decoder name="a"><prematch offset="odd">x</prematch></decoder>"#,
        r#"<decoder name="a"><prematch>x</prematch><json_null_field>empty</json_null_field></decoder>"#,
        r#"<decoder name="a"><prematch>x</prematch><json_array_structure>odd</json_array_structure></decoder>"#,
    ];
    for xml in cases {
        assert_eq!(warnings(xml), 1, "{xml}");
    }
}

#[test]
fn all_problems_of_all_files_are_told_with_their_place() {
    let sources = [
        Source::new(
            "a.xml",
            &b"<decoder name=\"a\">\n  <odd>x</odd>\n  <prematch>y\\y</prematch>\n</decoder>"[..],
        ),
        Source::new("b.xml", &b"\n<decoder name=\"b\"><parent>zz</parent></decoder>"[..]),
    ];
    let mut diagnostics = Vec::new();
    Decoders::load(&sources, &DecoderOptions::default(), &mut diagnostics);
    let places: Vec<_> = diagnostics.iter().map(|d| (&*d.file, d.line, d.column)).collect();
    assert_eq!(places, [("a.xml", 2, 4), ("a.xml", 3, 13), ("b.xml", 2, 2)]);
    assert!(diagnostics.iter().all(|problem| problem.help.is_some()));
}

#[test]
fn a_parent_with_a_mistake_is_not_held_against_its_children() {
    let xml = r#"<decoder name="p"><prematch>x\y</prematch></decoder>
                 <decoder name="c"><parent>p</parent><regex>(a)</regex><order>id</order></decoder>"#;
    assert_eq!(errors(xml).len(), 1);
}

#[test]
fn pieces_of_a_text_are_joined_without_separator() {
    let xml = r#"<decoder name="a"><prematch>^on</prematch><prematch>e|^two</prematch>
                 <regex>(\w</regex><regex>+) x</regex><order>id</order></decoder>"#;
    let decoders = loaded(xml);
    assert_eq!(decode(&decoders, "one x").field("id"), Some("one"));
    assert_eq!(decode(&decoders, "two x").field("id"), Some("two"));
}

#[test]
fn a_text_that_is_too_long_is_lost() {
    let decoder = |length: usize| {
        let long = "x".repeat(length);
        format!(r#"<decoder name="a"><program_name>p</program_name><prematch>{long}</prematch></decoder>"#)
    };
    assert_eq!(warnings(&decoder(1023)), 0);
    assert_eq!(warnings(&decoder(1024)), 1);
}

#[test]
fn names_are_known_with_the_built_in_ones() {
    let decoders = loaded(
        r#"<decoder name="p"><prematch>x</prematch></decoder>
           <decoder name="c" status="x"><parent>p</parent><prematch>y</prematch></decoder>"#,
    );
    for name in ["p", "c", "syscheck_new_entry", "windows_eventchannel", "rootcheck", "sca", "hostinfo_new"] {
        assert!(decoders.known(name), "{name}");
    }
    assert!(!decoders.known("P") && !decoders.known("syscheck"));
    assert_eq!(decoders.len(), 2);
}

#[test]
fn facts_are_kept() {
    let decoders = loaded(
        "\n<decoder name=\"p\"><prematch>x</prematch><type>web-log</type><regex>(a) (b)</regex><order>user, x.y</order>\
         <fts>name, user, x.y, extra_data, location</fts><ftscomment>first</ftscomment><accumulate /></decoder>",
    );
    let (id, info) = decoders.iter().next().unwrap();
    assert_eq!(decoders.info(id), info);
    assert_eq!((info.category, info.accumulate, info.line), (Category::WebLog, true, 2));
    assert_eq!(info.ftscomment.as_deref(), Some("first"));
    assert_eq!(
        info.fts,
        [
            FtsField::Name,
            FtsField::Static(StaticField::DstUser),
            FtsField::Dynamic("x.y".into()),
            FtsField::Static(StaticField::Data),
            FtsField::Location,
        ]
    );
}
