//! Every header form once as it should be, and where it stops being one.

use std::sync::Arc;

use proptest::prelude::*;
use tld_model::{Agent, AgentId, Event, Timestamp};

use super::{HostNames, predecode};

/// Header parts of a line: time, host, program, log; `-` for what is absent.
fn parts(line: &str) -> [String; 4] {
    let event = Event::local("/var/log/x", line.as_bytes(), Timestamp::EPOCH);
    let hosts = HostNames::new("own.example");
    let decoded = predecode(&event, &hosts);
    let show = |value: &Option<crate::Value<'_>>| {
        value.as_deref().map_or("-".into(), |value| String::from_utf8_lossy(value).into_owned())
    };
    [
        show(&decoded.timestamp),
        show(&decoded.hostname().map(Into::into)),
        show(&decoded.program_name),
        String::from_utf8_lossy(&decoded.log).into_owned(),
    ]
}

fn check(cases: &[(&str, [&str; 4])]) {
    for (line, expected) in cases {
        assert_eq!(parts(line), *expected, "{line}");
    }
}

#[test]
fn every_syslog_date_is_cut_off() {
    check(&[
        ("Dec 29 10:00:01 gate prog[7]: text", ["Dec 29 10:00:01", "gate", "prog", "text"]),
        ("Dec  9 10:00:01 gate prog: text", ["Dec  9 10:00:01", "gate", "prog", "text"]),
        (
            "2015-04-16 21:51:02,805 gate proftpd[7] text",
            ["2015-04-16 21:51:02,805", "gate", "proftpd", "text"],
        ),
        (
            "2007-06-14T15:48:55-04:00 gate prog[7]: text",
            ["2007-06-14T15:48:55-04:00", "gate", "prog", "text"],
        ),
        (
            "2007-06-14T15:48:55.123-04:00 gate prog[7]: text",
            ["2007-06-14T15:48:55.123-04:00", "gate", "prog", "text"],
        ),
        (
            "2007-06-14T15:48:55.123456-04:00 gate prog[7]: text",
            ["2007-06-14T15:48:55.123456-04:00", "gate", "prog", "text"],
        ),
        ("2015 Dec 29 10:00:01 gate prog: text", ["2015 Dec 29 10:00:01", "gate", "prog", "text"]),
        (
            "2021-04-21 10:16:09.404756-0700 localhost sshd[4]: text",
            ["2021-04-21 10:16:09.404756-0700", "localhost", "sshd", "text"],
        ),
    ]);
}

#[test]
fn an_iso_date_that_ends_in_z_is_only_a_header_with_a_fraction_and_then_cut_at_a_fixed_place() {
    check(&[
        (
            "2007-06-14T15:48:55Z gate prog[7]: some text",
            ["-", "own", "-", "2007-06-14T15:48:55Z gate prog[7]: some text"],
        ),
        ("2007-06-14T15:48:55.123456Z gate prog: x", ["2007-06-14T15:48:55.123456Z gat", "own", "prog", "x"]),
    ]);
}

#[test]
fn what_stops_a_name_decides_what_it_is() {
    let date = "Dec 29 10:00:01";
    check(&[
        ("Dec 29 10:00:01 prog: text", [date, "own", "prog", "text"]),
        ("Dec 29 10:00:01 prog:text", [date, "own", "-", "prog:text"]),
        ("Dec 29 10:00:01 prog[1]: text", [date, "own", "-", "prog[1]: text"]),
        ("Dec 29 10:00:01 gate prog:text", [date, "gate", "prog", "text"]),
        ("Dec 29 10:00:01 gate : text", [date, "gate", "", "text"]),
        ("Dec 29 10:00:01 gate prog[12]:text", [date, "gate", "prog", "text"]),
        ("Dec 29 10:00:01 gate prog[12] text", [date, "gate", "prog", "text"]),
        ("Dec 29 10:00:01 gate prog[12]text", [date, "gate", "-", "prog[12]text"]),
        ("Dec 29 10:00:01 gate prog[ab]: text", [date, "gate", "-", "prog[ab]: text"]),
        ("Dec 29 10:00:01 gate prog text", [date, "gate", "-", "prog text"]),
        ("Dec 29 10:00:01 gate prog", [date, "gate", "-", "prog"]),
        ("Dec 29 10:00:01 gate", [date, "own", "-", "gate"]),
        ("Dec 29 10:00:01  prog: text", [date, "own", "prog", "text"]),
        ("Dec 29 10:00:01 10.0.0.1 %ASA: text", [date, "10.0.0.1", "-", "%ASA: text"]),
    ]);
}

#[test]
fn solaris_message_ids_are_removed() {
    let date = "Dec 29 10:00:01";
    check(&[
        ("Dec 29 10:00:01 gate prog[1]: [ID 70 auth.info] text", [date, "gate", "prog", "text"]),
        ("Dec 29 10:00:01 gate prog: [ID 70 auth.info] text", [date, "gate", "prog", "text"]),
        ("Dec 29 10:00:01 prog: [ID 70 auth.info] text", [date, "own", "prog", "text"]),
        ("Dec 29 10:00:01 prog: [ID 70 auth.info text", [date, "own", "prog", "[ID 70 auth.info text"]),
        ("Dec 29 10:00:01 prog: [ID 7]", [date, "own", "prog", ""]),
    ]);
}

#[test]
fn aix_facilities_stand_before_the_program() {
    let date = "Dec 29 10:00:01";
    check(&[
        ("Dec 29 10:00:01 gate auth|security:info sshd[5]: text", [date, "gate", "sshd", "text"]),
        ("Dec 29 10:00:01 gate auth|security:info sshd: text", [date, "gate", "sshd", "text"]),
        ("Dec 29 10:00:01 gate auth|security:info sshd text", [date, "gate", "sshd text", " text"]),
        (
            "Dec 29 10:00:01 gate auth|security:info sshd[x]: text",
            [date, "gate", "sshd", "auth|security:info sshd[x]: text"],
        ),
        (
            "Dec 29 10:00:01 gate auth|security info sshd: text",
            [date, "gate", "-", "auth|security info sshd: text"],
        ),
        ("Dec 29 10:00:01 gate auth|7: text", [date, "gate", "-", "auth|7: text"]),
    ]);
}

#[test]
fn other_forms_lose_only_their_date() {
    check(&[
        (
            "Mon Apr 17 18:27:14 2006 1 10.0.0.1 file",
            ["Mon Apr 17 18:27:14 2006", "own", "-", "1 10.0.0.1 file"],
        ),
        (
            "01/28-09:13:16.240702  [**] [1:2:3] text",
            ["01/28-09:13:16.240702", "own", "-", "[**] [1:2:3] text"],
        ),
        ("01/28/1979-09:13:16.240702  [**] text", ["01/28/1979-09:13:16.240702", "own", "-", "[**] text"]),
        ("[Fri Feb 11 18:06:35 2004] [warn] text", ["Fri Feb 11 18:06:35 2004", "own", "-", "[warn] text"]),
        (
            "1140804070.368  11623 10.0.0.1 TCP_MISS/200",
            ["1140804070.368 ", "own", "-", "11623 10.0.0.1 TCP_MISS/200"],
        ),
        (
            "nothing of the kind, but long enough to be",
            ["-", "own", "-", "nothing of the kind, but long enough to be"],
        ),
        ("", ["-", "own", "-", ""]),
    ]);
}

#[test]
fn apple_logs_name_their_parts() {
    check(&[
        (
            "[Time 2006.12.28 15:53:55 UTC] [Facility auth] [Sender sshd] [PID 4] [Message text] [Host mac]",
            ["-", "mac", "sshd", "text"],
        ),
        ("[Time 2006.12.28 15:53:55 UTC] [Sender sshd] [Message text", ["-", "own", "sshd", "text"]),
        ("[Time 2006.12.28 15:53:55 UTC] [Sender sshd", ["-", "own", "-", " UTC] [Sender sshd"]),
    ]);
}

#[test]
fn a_german_march_is_recognised_and_loses_a_digit_of_its_time() {
    check(&[("Mär 29 10:00:01 gate prog: text", ["Mär 29 10:00:0", "gate", "prog", "text"])]);
}

#[test]
fn an_agents_event_carries_its_name_and_registered_address() {
    let agent = Agent { id: AgentId(7), name: "web".into(), registered_ip: "any".into(), ..Agent::default() };
    let mut event = Event::local("/var/log/x", "Dec 29 10:00:01 gate prog: text", Timestamp::EPOCH);
    event.agent = Arc::new(agent);
    let hosts = HostNames::new("own");
    let decoded = predecode(&event, &hosts);
    assert_eq!(&*decoded.location, b"(web) any->/var/log/x");
    assert_eq!(decoded.hostname(), Some(&b"web"[..]));
    assert_eq!(decoded.program_name.as_deref(), Some(&b"prog"[..]));
}

proptest! {
    #[test]
    fn no_line_makes_pre_decoding_panic_and_the_log_is_its_end(
        head in prop::sample::select(vec![
            "Dec 29 10:00:01 ", "2007-06-14T15:48:55.1234567890123 ", "[Time 2006.12.28 15:53:55 UTC] [Sender ",
            "Dec 29 10:00:01 h a|b:c ", "1140804070.368  11623 ", "01/28-09:13:16.240702  ", "M\u{e4}r 29 10:00:01 ",
        ]),
        cut in 0_usize..40,
        tail in prop::collection::vec(prop::sample::select(b"a1:[] |.\0(ID Host Message \xc3".to_vec()), 0..60),
    ) {
        let mut text = head.as_bytes()[..cut.min(head.len())].to_vec();
        text.extend(tail);
        let event = Event::local("x", text, Timestamp::EPOCH);
        let hosts = HostNames::new("own");
        let decoded = predecode(&event, &hosts);
        prop_assert!(event.text.len() >= decoded.log.len());
    }
}
