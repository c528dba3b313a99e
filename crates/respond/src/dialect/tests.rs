use tld_model::{OrderId, OrderOptions, RawJson, Target, Timestamp, Timings};

use super::*;

const ALERT: &str = r#"{"timestamp":"t","rule":{"level":10,"id":"100200","description":"d"},
    "agent":{"id":"001","name":"web01","ip":"10.0.0.21"},"manager":{"name":"mgr01"},"id":"1772446530.48213","full_log":"x",
    "data":{"srcip":"::ffff:203.0.113.7","srcport":"4","dstuser":"bob"},"location":"/var/log/auth.log"}"#;

fn order(contract: Contract, alert: &str, extra: &[&str]) -> Order {
    Order {
        id: OrderId("o".into()),
        response: "firewall-drop600".into(),
        executable: "old.sh".into(),
        timeout_secs: 600,
        extra_args: extra.iter().map(|one| (*one).to_owned()).collect(),
        node: "node01".into(),
        alert: RawJson::from(serde_json::value::RawValue::from_string(alert.into()).unwrap()),
        alert_id: "1772446530.48213".into(),
        rule: None,
        target: Target::None,
        created: Timestamp::from_nanos(0),
        timings: Timings::default(),
        options: OrderOptions { contract, ..OrderOptions::default() },
    }
}

fn words(alert: &str, extra: &[&str]) -> Vec<String> {
    let order = order(Contract::Argv, alert, extra);
    Dialect::of(&order, "active-response/bin/old.sh").words(Verb::Add).unwrap()
}

#[test]
fn the_words_before_4_2_stand_in_their_order() {
    assert_eq!(
        words(ALERT, &["-x", "a;b"]),
        [
            "add",
            "bob",
            "203.0.113.7",
            "1772446530.48213",
            "100200",
            "(web01) 10.0.0.21->/var/log/auth.log",
            "-",
            "-x",
            "a\\;b"
        ]
    );
    let file = r#"{"agent":{"id":"000","name":"mgr01"},"manager":{"name":"mgr01"},"location":"syscheck",
        "syscheck":{"path":"/etc/a (b)$"}}"#;
    assert_eq!(
        words(file, &[])[1..],
        ["-", "-", "1772446530.48213", "-", "mgr01->syscheck", "/etc/a \\(b\\)\\$", "-"]
    );
    let dialect = Dialect::of(&order(Contract::Argv, ALERT, &[]), "active-response/bin/old.sh");
    assert_eq!(dialect.words(Verb::Delete).unwrap()[0], "delete");
    assert!(
        dialect.keys("active-response/bin/old.sh").unwrap().ends_with(r#""keys":["bob","203.0.113.7"]}}"#)
    );
}

#[test]
fn a_user_that_a_shell_could_read_otherwise_is_left_out_and_the_address_is_still_acted_on() {
    for bad in ["$(reboot)", "-rf", "a;b", "a b", "`id`", "a\\nb", "DOMAIN\\\\bob", ""] {
        let alert = format!(r#"{{"data":{{"srcip":"203.0.113.7","dstuser":"{bad}"}}}}"#);
        assert_eq!(words(&alert, &[])[1..3], ["-", "203.0.113.7"], "{bad}");
    }
    for bad in ["-h", "a b", "1.2.3.4;id", "fe80::1%eth0"] {
        let alert = format!(r#"{{"data":{{"srcip":"{bad}","dstuser":"bob"}}}}"#);
        assert_eq!(words(&alert, &[])[1..3], ["bob", "-"], "{bad}");
    }
}

#[test]
fn the_document_of_5_x_is_flat_and_only_its_verbs_differ() {
    let dialect = Dialect::of(&order(Contract::Five, ALERT, &["a", "b"]), "active-response/bin/new.py");
    let of = |verb: &str| -> Value { serde_json::from_str(&dialect.line(verb).unwrap()).unwrap() };
    let enable = of("add");
    assert_eq!(enable["command"], "enable");
    assert_eq!(
        enable["wazuh"]["active_response"],
        json!({"name": "firewall-drop", "executable": "new.py", "type": "stateful", "stateful_timeout": 600,
            "agent_id": "001", "extra_arguments": "a b"})
    );
    assert_eq!(enable["wazuh"]["agent"]["name"], "web01");
    assert_eq!(enable["source"], json!({"ip": "::ffff:203.0.113.7", "port": "4"}));
    assert_eq!(enable["user"]["name"], "bob");
    assert_eq!(
        (of("delete")["command"].as_str(), of("abort")["command"].as_str()),
        (Some("disable"), Some("abort"))
    );
    assert!(!dialect.line("add").unwrap().contains('\n'));
}

proptest::proptest! {
    #[test]
    fn no_alert_makes_a_word_that_is_an_option(user: String, address: String, id: String, path: String) {
        let alert = json!({"data": {"dstuser": user, "srcip": address}, "rule": {"id": id}, "syscheck": {"path": path},
            "location": path}).to_string();
        let words = words(&alert, &[]);
        assert_eq!(words.len(), 8);
        for word in &words[1..5] {
            assert!(word == "-" || (!word.starts_with('-') && !word.contains([' ', ';', '$', '`', '|'])));
        }
        assert!(words.iter().all(|word| !word.is_empty() && !word.contains(['\n', '\0'])));
    }

    #[test]
    fn any_alert_becomes_one_line(user: String, log: String) {
        let alert = json!({"data": {"dstuser": user}, "full_log": log}).to_string();
        let line = Dialect::of(&order(Contract::Five, &alert, &[]), "a/b").line("add").unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["event"]["original"], log);
    }
}
