use proptest::prelude::*;

use super::*;

fn parse(line: &str) -> Result<Request, Reason> {
    Request::parse(line.as_bytes(), None)
}

#[test]
fn a_full_request_is_read_in_order() {
    let request = parse("OSSEC A:'web-01' V:'v4.14.7' G:'default,linux' IP:'src' K:'ab'\n").unwrap();
    assert_eq!(request.version.as_deref(), Some("v4.14.7"));
    assert_eq!(request.groups, ["default", "linux"]);
    assert_eq!(request.ip, Some(RequestedIp::Source));
    assert_eq!(request.key_hash.as_deref(), Some("ab"));
}

#[test]
fn a_part_out_of_order_hides_itself_and_all_behind_it() {
    let request = parse("OSSEC A:'web-01' G:'default' V:'v9.0.0' IP:'src'").unwrap();
    assert_eq!((request.version, request.ip), (None, None));
    assert_eq!(request.groups, ["default"]);
}

#[test]
fn faults_have_the_contracts_texts() {
    let long = "g".repeat(256);
    let many = vec!["g"; 129].join(",");
    for (line, text) in [
        ("OSSEC A:'ab' V:'v4", "Unterminated version field"),
        ("OSSEC A:'ab' G:'x", "Unterminated group field"),
        ("OSSEC A:'ab' IP:'src", "Unterminated IP field"),
        ("OSSEC A:'ab' K:'00", "Unterminated key field"),
        ("OSSEC A:'ab", "Invalid request for new agent"),
        ("", "Invalid request for new agent"),
        ("OSSEC A:''", "Invalid agent name: "),
        ("OSSEC A:'ab' IP:''", "Invalid IP: "),
        ("OSSEC A:'ab' G:''", "Invalid group name: ... Empty Group"),
        (&format!("OSSEC A:'ab' G:'{many}'"), "Maximum multigroup reached: Limit is 128"),
        (
            &format!("OSSEC A:'ab' G:'{long}'"),
            &format!("Invalid group name: {}... group is too large", &long[1..]),
        ),
        ("OSSEC A:'ab' G:'a,,b'", "Invalid group name: a,,b... each comma needs a name on both sides"),
        ("OSSEC A:'ab' G:'..'", r#"Invalid group name: ..... characters '\/:*?"<>|,' are prohibited"#),
    ] {
        assert_eq!(parse(line).unwrap_err().to_string(), text, "{line}");
    }
    assert_eq!(Request::parse(b"OSSEC A:'a\xff'", None), Err(Reason::Request));
}

#[test]
fn an_address_ends_at_a_blank_too() {
    let request = parse("OSSEC A:'ab' IP:'10.0.0.1 x' K:'h'").unwrap();
    assert_eq!(request.ip, Some(RequestedIp::Given("10.0.0.1".parse().unwrap())));
    assert_eq!(request.key_hash.as_deref(), Some("h"));
}

#[test]
fn passwords_are_the_first_line_of_their_file() {
    assert_eq!(password_of_file("S3cret pass\nmore\n"), Some(Secret::new("S3cret pass")));
    assert_eq!(password_of_file("abc"), Some(Secret::new("abc")));
    for short in ["", "a", "a\n", "\nabc"] {
        assert_eq!(password_of_file(short), None, "{short:?}");
    }
}

#[test]
fn only_the_whole_password_followed_by_a_blank_opens() {
    let secret = Secret::new("S3cret pass");
    for (line, opens) in [
        ("OSSEC PASS: S3cret pass OSSEC A:'ab'", true),
        ("OSSEC PASS: S3cret passX OSSEC A:'ab'", false),
        ("OSSEC PASS: S3cret pas OSSEC A:'ab'", false),
        ("OSSEC PASS: S3cret pass", false),
        ("OSSEC PASS: ", false),
        ("OSSEC A:'ab'", false),
    ] {
        assert_eq!(Request::parse(line.as_bytes(), Some(&secret)).is_ok(), opens, "{line}");
    }
}

#[test]
fn answers_are_read_as_agents_read_them() {
    let granted = Answer::parse(b"OSSEC K:'001 web-01 any 0123456789abcdef'").unwrap();
    assert_eq!(*granted.to_text(), "OSSEC K:'001 web-01 any 0123456789abcdef'");
    let refused = Answer::parse(b"ERROR: Duplicate agent name: x. Unable to add agent").unwrap();
    assert_eq!(refused, Answer::Refused("Duplicate agent name: x".into()));
    for bad in [&b""[..], b"OSSEC K:'001 a", b"OSSEC K:'001 ../x any key'", b"OSSEC K:''", b"\xff"] {
        assert!(Answer::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn an_error_answer_stays_within_its_limit() {
    let text = Answer::from(Reason::Name("ä".repeat(5_000))).to_text();
    assert!(text.len() <= ERROR_LIMIT && text.ends_with(". Unable to add agent"));
}

proptest! {
    #[test]
    fn any_line_is_survived(line in prop::collection::vec(any::<u8>(), 0..200), lead in "(OSSEC A:'ab')?( V:')?") {
        let line = [lead.as_bytes(), &line].concat();
        let _ = Request::parse(&line, None);
        let _ = Request::parse(&line, Some(&Secret::new("pass")));
        let _ = Answer::parse(&line);
    }

    #[test]
    fn requests_round_trip(name in "[A-Za-z0-9_-][A-Za-z0-9._-]{1,20}", version in prop::option::of("v4\\.[0-9]\\.[0-9]"),
                           groups in prop::collection::vec("[a-z]{1,8}", 0..4), hash in prop::option::of("[0-9a-f]{40}"),
                           ip in prop::option::of("src|any|10\\.0\\.0\\.[0-9]|fd00::/8"), password in prop::option::of("[a-z ]{3,9}")) {
        let ip = ip.map(|ip| if ip == "src" { RequestedIp::Source } else { RequestedIp::Given(ip.parse().unwrap()) });
        let request = Request { name, version, groups, ip, key_hash: hash };
        let secret = password.map(Secret::new);
        prop_assert_eq!(Request::parse(request.to_line(secret.as_ref()).as_bytes(), secret.as_ref()), Ok(request));
    }
}
