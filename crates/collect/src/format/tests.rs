use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn run(format: &mut dyn Format, lines: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    for line in lines {
        format.feed(line.as_bytes(), &mut out);
    }
    out.into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
}

fn delimited(at: MatchAt, newlines: Newlines) -> Delimited {
    let mark = Box::new(|text: &[u8]| text.ends_with(b"!"));
    Delimited::new(mark, at, newlines, Duration::from_secs(5))
}

#[test]
fn json_lines_are_written_compactly_in_their_own_order() {
    let mut json = Json::new(Vec::new());
    assert_eq!(run(&mut json, &[r#"{ "b" : 1, "a" : [ 1.50, null ] }"#]), [r#"{"b":1,"a":[1.5,null]}"#]);
}

#[test]
fn what_is_no_json_object_is_skipped() {
    assert!(run(&mut Json::new(Vec::new()), &["[1]", "text", "", "{", "1"]).is_empty());
}

#[test]
fn json_labels_nest_and_never_replace_a_member() {
    let labels = [("a.b", "1"), ("a.c", "2"), ("d", "3"), ("e.f", "4")];
    let mut json = Json::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec());
    assert_eq!(
        run(&mut json, &[r#"{"d":"own","a":{"b":"own"},"e":5}"#]),
        [r#"{"d":"own","a":{"b":"own","c":"2"},"e":5}"#]
    );
}

#[test]
fn a_fixed_number_of_lines_is_joined_with_blanks() {
    let mut count = Count::new(2);
    assert_eq!(run(&mut count, &["a", "b", "c"]), ["a b"]);
    assert!(count.pending());
}

#[test]
fn a_start_line_ends_the_message_before_it() {
    let mut format = delimited(MatchAt::Start, Newlines::Keep);
    assert_eq!(run(&mut format, &["one!", "x", "two!", "y"]), ["one!\nx"]);
    let mut out = Vec::new();
    format.flush(&mut out);
    assert_eq!(out, [b"two!\ny"]);
    assert!(!format.pending());
}

#[test]
fn an_end_line_belongs_to_its_message_and_newlines_are_replaced() {
    assert_eq!(run(&mut delimited(MatchAt::End, Newlines::Replace(b' ')), &["a", "b!", "c"]), ["a b!"]);
    assert_eq!(run(&mut delimited(MatchAt::All, Newlines::Remove), &["a", "b!"]), ["ab!"]);
}

#[test]
fn audit_records_with_one_id_become_one_message() {
    let lines = [
        "type=SYSCALL msg=audit(1.1:7): a=1",
        "type=PATH msg=audit(1.1:7): b=2",
        "noise",
        "type=SYSCALL msg=audit(1.2:8): c=3",
    ];
    let mut audit = Audit::default();
    assert_eq!(
        run(&mut audit, &lines),
        ["type=SYSCALL msg=audit(1.1:7): a=1 type=PATH msg=audit(1.1:7): b=2"]
    );
    assert!(audit.pending());
}

#[test]
fn postgresql_records_continue_with_tabs_and_mssql_records_with_anything() {
    let mut format = Stamped::postgresql();
    let lines = ["[2024-01-01 10:00:00.0 UTC] a", "\tb", "c", "[2024-01-01 10:00:01 UTC] d"];
    assert_eq!(run(&mut format, &lines), ["[2024-01-01 10:00:00.0 UTC] a b"]);
    let mut format = Stamped::mssql();
    let lines = ["lost", "2024-01-01 10:00:00 a", "b", "2024-01-01 10:00:01 d"];
    assert_eq!(run(&mut format, &lines), ["2024-01-01 10:00:00 a b"]);
}

#[test]
fn a_snort_record_yields_its_dated_line() {
    let lines = ["[**] [1:2:3] x [**]", "[Priority: 2]", "01/02-10:00:00.1 1.2.3.4 -> 5.6.7.8", "01/02 no"];
    assert_eq!(run(&mut SnortFull::default(), &lines), [lines[2]]);
}

#[test]
fn mysql_lines_without_a_time_take_the_last_one() {
    let lines = [
        "\t\t      9 early",
        "070823 21:01:30 [ERROR] x",
        "\t\t      3 Query y",
        "2020-01-02T03:04:05.678901Z 0 [Note] z",
        "other",
    ];
    assert_eq!(
        run(&mut Mysql::default(), &lines),
        [
            "MySQL log: 070823 21:01:30 [ERROR] x",
            "MySQL log: 070823 21:01:30 3 Query y",
            "MySQL log: 2020-01-02T03:04:05.678901Z 0 [Note] z"
        ]
    );
}

#[test]
fn a_multilog_label_is_cut_and_a_header_put_in_front_where_there_is_none() {
    let mut djb = Djb::new(b"qmail".to_vec(), Box::new(|| "Jan 02 03:04:05 host".to_owned()));
    let lines =
        ["@4000000050d8a1b12d3b5c1c text", "@4000000050d8a1b12d3b5c1c Jan  2 03:04:05 h x: y", "plain"];
    assert_eq!(run(&mut djb, &lines), ["Jan 02 03:04:05 host qmail: text", "Jan  2 03:04:05 h x: y"]);
}

proptest! {
    #[test]
    fn no_format_panics_or_grows_past_its_limit(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..30)) {
        let formats: [Box<dyn Format>; 9] = [
            Box::new(Plain),
            Box::new(Json::new(vec![("a.b".to_owned(), "c".to_owned())])),
            Box::new(Count::new(3)),
            Box::new(delimited(MatchAt::All, Newlines::Remove)),
            Box::new(Audit::default()),
            Box::new(Stamped::mssql()),
            Box::new(SnortFull::default()),
            Box::new(Mysql::default()),
            Box::new(Djb::new(Vec::new(), Box::new(String::new))),
        ];
        for mut format in formats {
            let mut out = Vec::new();
            for line in &lines {
                format.feed(line, &mut out);
            }
            format.flush(&mut out);
            prop_assert!(!format.pending());
            prop_assert!(out.iter().all(|text| text.len() <= MAX_MESSAGE));
        }
    }
}
