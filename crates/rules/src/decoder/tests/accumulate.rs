//! Lines of one id, put together.

use std::time::Duration;

use tld_model::Timestamp;

use super::{Scratch, event, loaded, text};
use crate::StaticField;
use crate::decoder::{Accumulator, Decoders};
use crate::predecode::{HostNames, predecode};

fn decoders() -> Decoders {
    let plugin = "<plugin_decoder>JSON_Decoder</plugin_decoder>";
    loaded(&format!(
        r#"<decoder name="acc"><prematch>^{{</prematch>{plugin}<accumulate/></decoder>
           <decoder name="not"><prematch>^not </prematch>
             <plugin_decoder offset="after_prematch">JSON_Decoder</plugin_decoder></decoder>"#
    ))
}

/// User and address of a line after the accumulator, `-` where absent.
fn apply(accumulator: &mut Accumulator, at: u64, line: &str) -> String {
    let decoders = decoders();
    let event = event(b'1', line);
    let hosts = HostNames::new("h");
    let mut decoded = predecode(&event, &hosts);
    decoders.decode(&mut decoded, &mut Scratch::new(), None);
    accumulator.apply(&decoders, &mut decoded, Timestamp::EPOCH.plus(Duration::from_secs(at)));
    let show = |field| decoded.field(field).map_or("-".to_owned(), text);
    format!("{} {}", show(StaticField::DstUser), show(StaticField::SrcIp))
}

fn run(cases: &[(u64, &str, &str)]) {
    let mut accumulator = Accumulator::new();
    for (at, line, expected) in cases {
        assert_eq!(apply(&mut accumulator, *at, line), *expected, "{at} {line}");
    }
}

#[test]
fn later_lines_take_what_earlier_ones_said() {
    run(&[
        (0, r#"{"id":"1","user":"bob"}"#, "bob -"),
        (1, r#"{"id":"1","srcip":"1.2.3.4"}"#, "bob 1.2.3.4"),
        (2, r#"{"id":"1"}"#, "bob 1.2.3.4"),
    ]);
}

#[test]
fn an_events_own_values_stay_and_the_first_one_is_remembered() {
    run(&[
        (0, r#"{"id":"1","user":"bob"}"#, "bob -"),
        (1, r#"{"id":"1","user":"eve"}"#, "eve -"),
        (2, r#"{"id":"1"}"#, "bob -"),
    ]);
}

#[test]
fn ids_do_not_mix() {
    run(&[(0, r#"{"id":"1","user":"bob"}"#, "bob -"), (1, r#"{"id":"2"}"#, "- -")]);
}

#[test]
fn an_event_without_id_is_left_alone() {
    run(&[(0, r#"{"user":"bob"}"#, "bob -"), (1, r#"{"srcip":"1.2.3.4"}"#, "- 1.2.3.4")]);
}

#[test]
fn a_decoder_that_does_not_ask_is_left_alone() {
    run(&[(0, r#"not {"id":"1","user":"bob"}"#, "bob -"), (1, r#"not {"id":"1"}"#, "- -")]);
}

#[test]
fn records_live_two_minutes_from_their_last_use() {
    run(&[
        (0, r#"{"id":"1","user":"bob"}"#, "bob -"),
        (119, r#"{"id":"1"}"#, "bob -"),
        (238, r#"{"id":"1"}"#, "bob -"),
        (358, r#"{"id":"1"}"#, "- -"),
    ]);
}

#[test]
fn an_old_record_is_replaced_by_the_new_event() {
    run(&[
        (0, r#"{"id":"1","user":"bob"}"#, "bob -"),
        (500, r#"{"id":"1","user":"eve"}"#, "eve -"),
        (501, r#"{"id":"1"}"#, "eve -"),
    ]);
}

#[test]
fn long_values_are_not_remembered() {
    let line = |length: usize| format!(r#"{{"id":"1","user":"{}"}}"#, "x".repeat(length));
    for (length, kept) in [(80, true), (81, false)] {
        let mut accumulator = Accumulator::new();
        apply(&mut accumulator, 0, &line(length));
        assert_eq!(apply(&mut accumulator, 1, r#"{"id":"1"}"#) != "- -", kept, "{length}");
    }
}

#[test]
fn a_crowd_of_ids_is_bounded_and_keeps_the_latest() {
    let decoders = decoders();
    let mut accumulator = Accumulator::new();
    let hosts = HostNames::new("h");
    for number in 0..50_000 {
        let event = event(b'1', &format!(r#"{{"id":"{number}","user":"bob"}}"#));
        let mut decoded = predecode(&event, &hosts);
        decoders.decode(&mut decoded, &mut Scratch::new(), None);
        accumulator.apply(&decoders, &mut decoded, Timestamp::EPOCH);
    }
    assert!(accumulator.len() <= 32_768);
    assert_eq!(apply(&mut accumulator, 0, r#"{"id":"49999"}"#), "bob -");
}

#[test]
fn old_records_are_purged_by_the_way() {
    let mut accumulator = Accumulator::new();
    for number in 0..150 {
        apply(&mut accumulator, 0, &format!(r#"{{"id":"{number}","user":"bob"}}"#));
    }
    for _ in 0..50 {
        apply(&mut accumulator, 1000, r#"{"id":"new"}"#);
    }
    assert_eq!(accumulator.len(), 1);
}
