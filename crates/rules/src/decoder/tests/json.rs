//! The JSON plugin: which fields a document gives, and where it is parsed from.

use proptest::prelude::*;

use super::{decode, event, loaded, text};
use crate::decoder::json::Json;
use crate::decoder::plugin::json::{Buffers, decode as read, fill};
use crate::decoder::{Decoders, JsonOptions};
use crate::fields::FieldNames;
use crate::{Decoded, StaticField};

fn plain() -> Decoders {
    loaded(
        r#"<decoder name="j"><prematch>^{</prematch><plugin_decoder>JSON_Decoder</plugin_decoder></decoder>"#,
    )
}

fn with(options: &str) -> Decoders {
    let head = r#"<decoder name="j"><prematch>^{</prematch><plugin_decoder>JSON_Decoder</plugin_decoder>"#;
    loaded(&format!("{head}{options}</decoder>"))
}

fn check(decoders: &Decoders, cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        let outcome = decode(decoders, line);
        assert_eq!((outcome.decoder.as_str(), outcome.listed().as_str()), ("j", *expected), "{line}");
    }
}

#[test]
fn scalars_become_text() {
    let cases = [
        (r#"{"a":"x"}"#, "a=x"),
        (r#"{"a":""}"#, "a="),
        (r#"{"a":true,"b":false}"#, "a=true b=false"),
        (r#"{"a":null}"#, "a=null"),
        (r#"{"a":1}"#, "a=1"),
        (r#"{"a":-17}"#, "a=-17"),
        (r#"{"a":0}"#, "a=0"),
        (r#"{"a":-0}"#, "a=0"),
        (r#"{"a":1.0}"#, "a=1"),
        (r#"{"a":1.5}"#, "a=1.500000"),
        (r#"{"a":2147483647}"#, "a=2147483647"),
        (r#"{"a":2147483648}"#, "a=2147483648.000000"),
        (r#"{"a":-2147483648}"#, "a=-2147483648"),
        (r#"{"a":-2147483649}"#, "a=-2147483649.000000"),
        (r#"{"a":3000000000}"#, "a=3000000000.000000"),
        (r#"{"a":1e3}"#, "a=1000"),
        (r#"{"a":1e-7}"#, "a=0.000000"),
        (r#"{"a":0.1}"#, "a=0.100000"),
        (r#"{"a":007}"#, "a=7"),
        (r#"{"a":1e}"#, ""),
        (r#"{"a":1e999}"#, "a=inf"),
    ];
    check(&plain(), &cases);
}

#[test]
fn strings_lose_their_escapes() {
    let cases = [
        (r#"{"a":"x\"y"}"#, "a=x\"y"),
        (r#"{"a":"x\\y\/z"}"#, "a=x\\y/z"),
        (r#"{"a":"x\n\r\t\b\fy"}"#, "a=x\n\r\t\u{8}\u{c}y"),
        (r#"{"a":"\u0041\u00e9"}"#, "a=Aé"),
        (r#"{"a":"\ud83d\ude00"}"#, "a=😀"),
        (r#"{"a":"\ud83d"}"#, ""),
        (r#"{"a":"\ude00"}"#, ""),
        (r#"{"a":"\x"}"#, ""),
        (r#"{"a":"\u00g1"}"#, ""),
        (r#"{"a":"x\u0000y"}"#, "a=x"),
        (r#"{"a\u0062":"x"}"#, "ab=x"),
        (r#"{"ä":"ö"}"#, "ä=ö"),
    ];
    check(&plain(), &cases);
}

#[test]
fn documents_are_walked_in_their_order() {
    let cases = [
        (r#"{"z":1,"a":2,"m":3}"#, "z=1 a=2 m=3"),
        (r#"{"a":{"b":{"c":1},"d":2},"e":3}"#, "a.b.c=1 a.d=2 e=3"),
        (r#"{"a":{}}"#, ""),
        (r#"{}"#, ""),
        (r#"{"a":1,"a":2}"#, "a=1 a=2"),
        (r#"{"a.b":1,"a":{"b":2}}"#, "a.b=1 a.b=2"),
        (r#"{ "a" : 1 , "b" : 2 } and more"#, "a=1 b=2"),
        (r#"{"a":1,}"#, ""),
        (r#"{"a":1"#, ""),
        (r#"{"a" 1}"#, ""),
        (r#"{"":1}"#, "=1"),
    ];
    check(&plain(), &cases);
}

#[test]
fn known_names_fill_static_fields_at_the_top_only() {
    let cases = [
        (r#"{"srcip":"1.2.3.4","srcport":22}"#, "srcip=1.2.3.4 srcport=22"),
        (
            r#"{"id":1,"url":"/","data":"d","extra_data":"e","status":"s"}"#,
            "id=1 status=s url=/ data=d extra_data=e",
        ),
        (r#"{"systemname":"a","system_name":"b"}"#, "system_name=a system_name=b"),
        (r#"{"a":{"srcip":"1.2.3.4"}}"#, "a.srcip=1.2.3.4"),
        (r#"{"SrcIp":"1.2.3.4"}"#, "SrcIp=1.2.3.4"),
        (r#"{"srcip":"1.2.3.4","srcip":"5.6.7.8"}"#, "srcip=5.6.7.8"),
        (r#"{"user":"a"}"#, "dstuser=a"),
        (r#"{"user":"a","user":"b"}"#, "dstuser=a user=b"),
        (r#"{"dstuser":"a","user":"b"}"#, "dstuser=a user=b"),
        (r#"{"user":"a","dstuser":"b"}"#, "dstuser=b"),
        (r#"{"srcip":null}"#, "srcip=null"),
    ];
    check(&plain(), &cases);
}

#[test]
fn arrays_are_shown_as_indented_text() {
    let cases = [
        (r#"{"a":[]}"#, "a=[]"),
        (r#"{"a":["x","y"]}"#, r#"a=["x", "y"]"#),
        (r#"{"a":[1,2.5,3000000000,true,null]}"#, "a=[1, 2.5, 3000000000, true, null]"),
        (r#"{"a":[[1],[2]]}"#, "a=[[1], [2]]"),
        (r#"{"a":["x\"y\n\u0001é"]}"#, "a=[\"x\\\"y\\n\\u0001é\"]"),
        (r#"{"a":[{"b":1,"c":"d"}]}"#, "a=[{\n\t\t\"b\":\t1,\n\t\t\"c\":\t\"d\"\n\t}]"),
        (r#"{"a":[{"b":{"c":1}}]}"#, "a=[{\n\t\t\"b\":\t{\n\t\t\t\"c\":\t1\n\t\t}\n\t}]"),
        (r#"{"a":[{}]}"#, "a=[{\n\t}]"),
        (r#"{"a":[1e21,1e-5,0.1]}"#, "a=[1e+21, 1e-05, 0.1]"),
    ];
    check(&plain(), &cases);
}

#[test]
fn csv_arrays_join_scalars_and_skip_the_rest() {
    let cases = [
        (r#"{"a":["x","y"]}"#, "a=x,y"),
        (r#"{"a":[1,1.5,true,null]}"#, "a=1,1.500000,true,null"),
        (r#"{"a":[]}"#, ""),
        (r#"{"a":[[1],{"b":2}]}"#, ""),
        (r#"{"a":["x",{},"y"]}"#, "a=x,y"),
        (r#"{"a":["x",{}]}"#, "a=x,"),
        (r#"{"a":[{},"x"]}"#, "a=x"),
    ];
    check(&with("<json_array_structure>csv</json_array_structure>"), &cases);
    let long = format!(r#"{{"a":["{}","{}"]}}"#, "x".repeat(40_000), "y".repeat(40_000));
    assert_eq!(decode(&with("<json_array_structure>csv</json_array_structure>"), &long).listed(), "");
}

#[test]
fn null_can_be_discarded() {
    let discarding = with("<json_null_field>discard</json_null_field>");
    check(&discarding, &[(r#"{"a":null,"b":1}"#, "b=1"), (r#"{"a":[null]}"#, "a=[null]")]);
}

#[test]
fn a_plugin_child_starts_where_the_events_decoder_says() {
    let decoders = loaded(
        r#"<decoder name="j"><prematch>^app: </prematch></decoder>
           <decoder name="c"><parent>j</parent><prematch offset="after_parent">^json </prematch>
             <plugin_decoder offset="after_prematch">JSON_Decoder</plugin_decoder></decoder>
           <decoder name="d"><parent>j</parent><prematch offset="after_parent">^{</prematch>
             <plugin_decoder offset="after_parent">JSON_Decoder</plugin_decoder></decoder>"#,
    );
    check(
        &decoders,
        &[(r#"app: json {"a":1}"#, "a=1"), (r#"app: {"a":1}"#, "a=1"), (r#"app: x {"a":1}"#, "")],
    );
}

#[test]
fn a_plugin_child_without_prematch_parses_the_whole_log_with_its_parents_options() {
    let decoders = loaded(
        r#"<decoder name="j"><prematch>^{</prematch><json_null_field>discard</json_null_field></decoder>
           <decoder name="c"><parent>j</parent><plugin_decoder offset="after_parent">JSON_Decoder</plugin_decoder></decoder>"#,
    );
    check(&decoders, &[(r#"{"a":null,"b":1}"#, "b=1")]);
}

#[test]
fn a_top_level_plugin_may_start_behind_its_own_prematch() {
    let decoders = loaded(
        r#"<decoder name="j"><prematch>^app: </prematch>
             <plugin_decoder offset="after_prematch">JSON_Decoder</plugin_decoder></decoder>"#,
    );
    check(&decoders, &[(r#"app: {"a":1}"#, "a=1"), ("app: none", "")]);
}

#[test]
fn nesting_is_limited_and_costs_no_stack() {
    let deep = |depth: usize| [r#"{"a":"#.repeat(depth), "1".into(), "}".repeat(depth)].concat();
    let decoders = plain();
    assert_eq!(decode(&decoders, &deep(500)).fields.len(), 1);
    assert_eq!(decode(&decoders, &deep(600)).fields.len(), 0);
    assert_eq!(decode(&decoders, &deep(100_000)).fields.len(), 0);
}

#[test]
fn fields_beyond_the_limit_are_dropped() {
    let members: Vec<String> = (0..400).map(|n| format!(r#""k{n}":1"#)).collect();
    assert_eq!(decode(&plain(), &format!("{{{}}}", members.join(","))).fields.len(), 256);
}

/// A value of a document, with blanks and escapes in many places, and now and then a mistake.
fn document() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        8 => r#""([ -!#-\[\]-~é]|\\["\\/bfnrt]|\\u00(e9|41|00|0a)){0,40}""#,
        4 => "-?(0|[1-9][0-9]{0,11}|21474836(47|48|49))",
        4 => "-?[0-9]{1,17}([.][0-9]{1,4})?(e-?[0-9]{1,2})?",
        4 => "true|false|null",
        1 => prop::sample::select(vec!["nul", "\"a", r#""\x""#, "\"a\0b\"", "[", "}"]).prop_map(str::to_owned).boxed(),
    ];
    let key = r#""(user|id|Id|systemname|system_name|[aAb]{0,9}|a[.]b|é|[ab]\\u0041|a\\u0000b)""#;
    scalar.prop_recursive(4, 40, 6, move |inner| {
        let member = (key, "[ \t]{0,2}", "[ \n]{0,2}", inner.clone());
        let member = member.prop_map(|(key, before, behind, value)| format!("{key}{before}:{behind}{value}"));
        prop_oneof![
            2 => prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(" , "))),
            1 => prop::collection::vec(inner, 0..4).prop_map(|elements| format!("[{}]", elements.join(", "))),
        ]
    })
}

/// A document mostly as alerts write one.
fn tight_document() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        12 => r#""[ -!#-\[\]-~é]{1,40}""#,
        4 => r#""([a-z]|\\["\\bfnrt]){0,12}""#,
        1 => r#""([a-z]|\\["/\\]|\\u00(e9|00|0a)|\t|\x00){0,6}""#,
        1 => r#""\[(1, ?2|\\"a\\")?\]?""#,
        2 => "-?[0-9]{1,12}|1[.]5|1e3|-0|true|false|null",
    ];
    let blank = || prop_oneof![20 => Just(""), 1 => Just(" ")];
    let name = prop_oneof![20 => "[a-z]{1,6}", 1 => r#"|user|a[.]b|é|\\u0041|\\/|\\\\|A"#];
    let value = scalar.prop_recursive(4, 60, 8, move |inner| {
        let member = (blank(), name.clone(), blank(), blank(), inner.clone(), blank());
        let member =
            member.prop_map(|(a, name, b, c, value, d)| format!(r#"{a}"{name}"{b}:{c}{value}{d}"#));
        let element = (blank(), inner, blank()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        prop_oneof![
            2 => prop::collection::vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(","))),
            1 => prop::collection::vec(element, 0..4).prop_map(|elements| format!("[{}]", elements.join(","))),
        ]
    });
    prop::collection::vec(value, 1..6).prop_map(|values| {
        let members = values.iter().enumerate().map(|(number, value)| format!(r#""k{number}":{value}"#));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

/// All fields, and which names rules know.
fn told(decoded: &Decoded<'_>) -> (Vec<Option<String>>, Vec<(String, String)>) {
    let fixed = StaticField::ALL.into_iter().map(|field| decoded.field(field).map(text)).collect();
    (fixed, decoded.dynamic().map(|(name, value)| (text(&name), text(value))).collect())
}

proptest! {
    #[test]
    fn fields_taken_while_reading_are_those_of_the_whole_document(
        body in document(), discard_null: bool, csv_arrays: bool, most in 1_usize..8,
    ) {
        let options = JsonOptions { discard_null, csv_arrays };
        let mut decoders = plain();
        decoders.set_fields(FieldNames::new(["a", "a.b", "a.a.aa", "user", "aab.é", "b.id"].into_iter()));
        decoders.order_size = if most == 7 { 256 } else { most };
        let text = format!(r#"{{"a": {body}, "b":{body}}}"#);
        let event = event(b'1', &text);
        let (mut once, mut twice) = (Decoded::new(&event), Decoded::new(&event));
        let there = read(&mut once, &event.text, options, &decoders, &mut Buffers::default());
        let document = Json::parse(text.as_bytes());
        prop_assert_eq!(there, document.is_some());
        if let Some(document) = document {
            fill(&mut twice, document, options, &decoders);
        }
        prop_assert_eq!(told(&once), told(&twice));
        let known: Vec<_> = once.known().map(|(field, value)| (field, value.to_vec())).collect();
        let named = once.dynamic().filter_map(|(name, value)| Some((decoders.fields().find(&name)?, value.to_vec())));
        prop_assert_eq!(known, named.collect::<Vec<_>>());
    }

    #[test]
    fn alerts_copy_only_what_they_would_write(text in tight_document(), twice: bool, most in 1_usize..40) {
        let event = event(b'1', &text);
        let mut decoded = Decoded::new(&event);
        let mut decoders = plain();
        decoders.order_size = most;
        let options = JsonOptions { discard_null: false, csv_arrays: false };
        for _ in 0..=usize::from(twice) {
            prop_assert!(read(&mut decoded, &event.text, options, &decoders, &mut Buffers::default()), "{}", text);
        }
        let [written, plain] = crate::alert::data_in_both_forms(&decoded);
        prop_assert_eq!(written, plain);
    }

    #[test]
    fn alerts_copy_only_what_they_would_write_whatever_the_bytes(
        text in tight_document(),
        at in 0_usize..2000,
        bytes in prop::collection::vec(any::<u8>(), 1..4),
    ) {
        let mut text = text.into_bytes();
        let at = at % text.len();
        text.splice(at..at, bytes);
        let mut event = event(b'1', "");
        event.text = text;
        let mut decoded = Decoded::new(&event);
        let options = JsonOptions { discard_null: false, csv_arrays: false };
        if read(&mut decoded, &event.text, options, &plain(), &mut Buffers::default()) {
            let [written, plain] = crate::alert::data_in_both_forms(&decoded);
            prop_assert_eq!(written, plain);
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in prop::collection::vec(
        prop::sample::select(br#"{}[]":,\u0019.e-ntrualse "#.to_vec()), 0..80)) {
        if let Some(value) = Json::parse(&text) {
            let compact = value.compact();
            prop_assert_eq!(Json::parse(&compact).map(|again| again.compact()), Some(compact));
            prop_assert!(Json::parse(&value.pretty()).is_some());
        }
    }

    #[test]
    fn strings_survive_writing_and_reading(text in "[^\0]*") {
        let written = Json::String(text.as_bytes().into()).compact();
        prop_assert_eq!(Json::parse(&written), Some(Json::String(text.as_bytes().into())));
    }
}
