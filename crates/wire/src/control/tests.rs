use proptest::prelude::*;
use tld_model::OrderId;

use super::*;

fn to_agent(text: &str) -> FromManager {
    FromManager::parse(text.as_bytes()).unwrap()
}

#[test]
fn trailing_blanks_are_significant() {
    assert_eq!(FromManager::Ack.to_bytes(), b"#!-agent ack ");
    assert_eq!(FromManager::CloseFile.to_bytes(), b"#!-close file ");
    assert_eq!(FromAgent::Shutdown.to_bytes(), b"#!-agent shutdown ");
    assert_eq!(FromAgent::Startup(Startup::Bare).to_bytes(), b"#!-agent startup ");
    for almost in ["#!-agent ack", "#!-agent ack  ", "#!-close file", "#!-force_reconnect "] {
        assert!(matches!(to_agent(almost), FromManager::Unknown(_)), "{almost}");
    }
    assert!(matches!(FromAgent::parse(b"#!-agent shutdown"), Some(FromAgent::Unknown(_))));
    assert_eq!(FromAgent::parse(b"1:a:b"), None);
    assert_eq!(FromAgent::parse(b"#!-agent shutdown \0x"), Some(FromAgent::Shutdown));
}

#[test]
fn a_manager_answers_the_handshake_by_version() {
    for (text, answer) in [
        ("", "#!-agent ack "),
        (r#"{"version":"v4.14.7"}"#, "#!-agent ack "),
        (r#"{"version":"v4.3.0","threatlockdown":{"protocol":1}} x"#, "#!-agent ack "),
        (
            r#"{"version":"v9.0.0"}"#,
            r#"#!-err {"message":"Agent version must be lower or equal to manager version"}"#,
        ),
        (r#"{}"#, r#"#!-err {"message":"Couldn't retrieve version"}"#),
        (r#"{"version":4}"#, r#"#!-err {"message":"Couldn't retrieve version"}"#),
        ("{broken", r#"#!-err {"message":"Couldn't retrieve version"}"#),
    ] {
        let payload = format!("#!-agent startup {text}");
        let Some(FromAgent::Startup(startup)) = FromAgent::parse(payload.as_bytes()) else {
            panic!("{text}")
        };
        let answered = startup.answer(Version::CONTRACT, false);
        assert_eq!(String::from_utf8_lossy(&answered.to_bytes()), answer, "{text}");
        assert_eq!(FromManager::parse(&answered.to_bytes()), Some(answered));
    }
    let newer = Startup::Told { version: Some("v9.0.0".into()), hello: None };
    assert_eq!(newer.answer(Version::CONTRACT, true), FromManager::Ack);
}

#[test]
fn our_handshake_declares_the_extension_and_others_do_not() {
    let ours = FromAgent::Startup(Startup::ours());
    assert_eq!(
        String::from_utf8_lossy(&ours.to_bytes()),
        r#"#!-agent startup {"version":"v4.14.7","threatlockdown":{"protocol":1}}"#
    );
    assert_eq!(FromAgent::parse(&ours.to_bytes()), Some(ours));
    let plain = Startup::Told { version: Some("v4.14.7".into()), hello: None };
    assert_eq!(FromAgent::Startup(plain).to_bytes(), br#"#!-agent startup {"version":"v4.14.7"}"#);
    let odd = FromAgent::parse(br#"#!-agent startup {"version":"v4.14.7","threatlockdown":"yes"}"#);
    let Some(FromAgent::Startup(odd)) = odd else { panic!() };
    assert_eq!((odd.version(), odd.hello()), (Some(Version::CONTRACT), None));
}

#[test]
fn queries_reach_only_listed_targets() {
    let query = to_agent("#!-req 3ade68b1 com getconfig active-response");
    let id = QueryId::new(0x3ade_68b1);
    assert_eq!(
        query,
        FromManager::Query {
            id: id.clone(),
            target: QueryTarget::Com,
            text: b"getconfig active-response".to_vec()
        }
    );
    for stray in
        ["#!-req 3ade68b1 ../../x y", "#!-req 3ade68b1 com/x y", "#!-req 3ade68b1", "#!-req 3ade68b1 "]
    {
        assert_eq!(to_agent(stray), FromManager::StrayQuery(id.clone()), "{stray}");
    }
    assert_eq!(to_agent("#!-req 3ade68b1 ack"), FromManager::AnswerReceived(id.clone()));
    assert!(matches!(to_agent("#!-req x/y com z"), FromManager::Unknown(_)));
    let answer = FromAgent::parse(b"#!-req 3ade68b1 ok {\"client\":{}}");
    assert_eq!(answer, Some(FromAgent::Answer { id: id.clone(), text: b"ok {\"client\":{}}".to_vec() }));
    assert_eq!(FromAgent::parse(b"#!-req 3ade68b1 ack"), Some(FromAgent::QueryReceived(id)));
}

#[test]
fn messages_to_agents_are_told_apart() {
    let table = [
        ("#!-execd {\"a\":1} - null", FromManager::Execd(b"{\"a\":1} - null".to_vec())),
        (
            "#!-up file 9a016508cea1e997ab8569f5cfab30f5 merged.mg\n",
            FromManager::UpFile { md5: "9a016508cea1e997ab8569f5cfab30f5".into(), name: "merged.mg".into() },
        ),
        ("#!-force_reconnect", FromManager::Reconnect),
        ("#!-syscheck restart", FromManager::Integrity(b"syscheck restart".to_vec())),
        ("#!-syscollector_x y", FromManager::Inventory(b"syscollector_x y".to_vec())),
        ("#!-sca-dump:x", FromManager::Assessment(b"sca-dump:x".to_vec())),
        (
            "#!-threatlockdown {\"cancel\":{\"order\":\"o1\"}}",
            FromManager::Extension(extension::FromManager::Cancel { order: OrderId("o1".into()) }),
        ),
        ("#!-up file short x\n", FromManager::Unknown(b"up file short x\n".to_vec())),
        ("#!-threatlockdown {}", FromManager::Unknown(b"threatlockdown {}".to_vec())),
    ];
    for (text, message) in table {
        assert_eq!(to_agent(text), message, "{text}");
        assert_eq!(String::from_utf8_lossy(&message.to_bytes()), text);
    }
    assert_eq!(FromManager::parse(b"#default\n"), None);
}

const UNAME: &str =
    "Linux |web-01 |6.1.0 |#1 SMP Debian 6.1.76-1 (2024) |x86_64 [Debian GNU/Linux|debian: 12 (bookworm)]";

#[test]
fn a_keep_alive_is_read_line_by_line() {
    let sum = "0123456789abcdef0123456789abcdef";
    let text = format!(
        "#!-{UNAME} - Wazuh v4.14.7 / {sum}\n\"a.b\":c\n!\"secret\":x:y\n#\"_sys\":1\n{sum} merged.mg\n#\"_agent_ip\":10.0.0.4\npadding"
    );
    let Some(FromAgent::KeepAlive(alive)) = FromAgent::parse(text.as_bytes()) else { panic!() };
    assert_eq!(alive.product.as_deref(), Some("Wazuh v4.14.7"));
    assert_eq!((alive.config_sum.as_deref(), alive.merged_sum.as_deref()), (Some(sum), Some(sum)));
    assert_eq!(alive.ip, Some("10.0.0.4".parse().unwrap()));
    let label = |system, hidden, key: &str, value: &str| Label {
        system,
        hidden,
        key: key.into(),
        value: value.into(),
    };
    assert_eq!(
        alive.labels,
        [
            label(false, false, "a.b", "c"),
            label(false, true, "secret", "x:y"),
            label(true, false, "_sys", "1")
        ]
    );
    let system = alive.system();
    assert_eq!(
        system.uname,
        ["Linux", "web-01", "6.1.0", "#1 SMP Debian 6.1.76-1 (2024)", "x86_64"].map(Some)
    );
    assert_eq!((system.name, system.platform), (Some("Debian GNU/Linux"), Some("debian")));
    assert_eq!((system.version, system.codename), (Some("12"), Some("bookworm")));
    assert_eq!(FromAgent::KeepAlive(alive).to_bytes(), text.strip_suffix("padding").unwrap().as_bytes());
}

#[test]
fn a_keep_alive_without_files_says_x() {
    let alive =
        KeepAlive { system: UNAME.into(), product: Some("Wazuh v4.14.7".into()), ..KeepAlive::default() };
    let text = format!("#!-{UNAME} - Wazuh v4.14.7\nx merged.mg\n");
    assert_eq!(FromAgent::KeepAlive(alive.clone()).to_bytes(), text.as_bytes());
    assert_eq!(FromAgent::parse(text.as_bytes()), Some(FromAgent::KeepAlive(alive)));
    assert!(matches!(FromAgent::parse(b"#!-anything"), Some(FromAgent::Unknown(_))));
}

#[test]
fn too_many_labels_are_cut_and_the_message_stays_whole() {
    let label = Label { key: "k".repeat(100), value: "v".repeat(900), ..Label::default() };
    let alive = KeepAlive { system: UNAME.into(), labels: vec![label; 100], ..KeepAlive::default() };
    let payload = FromAgent::KeepAlive(alive).to_bytes();
    assert!(payload.len() <= crate::seal::PAYLOAD_LIMIT && payload.ends_with(b"\nx merged.mg\n"));
}

#[test]
fn odd_system_descriptions_give_what_they_have() {
    assert_eq!(System::parse("").uname[0], Some(""));
    let windows = System::parse("Microsoft Windows 10 Pro [Ver: 10.0.19045.1] |host |x86_64");
    assert_eq!(windows.name, None);
    assert_eq!(System::parse("Linux |h [X]").name, Some("X"));
    assert_eq!(System::parse("a [b|c").platform, None);
}

proptest! {
    #[test]
    fn any_payload_is_survived(text in "\\PC{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60),
                               lead in "(req |agent startup |up file |err |threatlockdown |execd )?") {
        for tail in [text.as_bytes(), &bytes] {
            let payload = [LEAD, lead.as_bytes(), tail].concat();
            let _ = FromManager::parse(&payload).map(|message| message.to_bytes());
            if let Some(FromAgent::KeepAlive(alive)) = FromAgent::parse(&payload) {
                let _ = alive.system();
            }
        }
    }

    #[test]
    fn what_a_manager_writes_an_agent_reads(text in "[a-z{}\":, ]{1,30}", id: u32, which in 0usize..5) {
        let id = QueryId::new(id);
        let message = match which {
            0 => FromManager::Execd(text.into_bytes()),
            1 => FromManager::Query { id, target: QueryTarget::Agent, text: text.into_bytes() },
            2 => FromManager::up_file("merged.mg", text.as_bytes()),
            3 => FromManager::Refused { message: text },
            _ => FromManager::AnswerReceived(id),
        };
        prop_assert_eq!(FromManager::parse(&message.to_bytes()), Some(message));
    }

    #[test]
    fn keep_alives_round_trip(system in "[A-Za-z |#()\\[\\].]{0,40}", product in prop::option::of("[a-z]{1,5} v[0-9.]{1,5}"),
                              sums in prop::option::of("[0-9a-f]{32}"),
                              labels in prop::collection::vec(("[a-z.]{1,6}", "[ -~]{0,12}", any::<bool>(), any::<bool>()), 0..5)) {
        let labels = labels.into_iter().map(|(key, value, system, hidden)| Label { system, hidden, key, value }).collect();
        let alive = KeepAlive { system, product, config_sum: sums.clone(), labels, merged_sum: sums, ip: None };
        let payload = FromAgent::KeepAlive(alive.clone()).to_bytes();
        prop_assert_eq!(FromAgent::parse(&payload), Some(FromAgent::KeepAlive(alive)));
    }
}
