//! Log lines through pre-decoding, decoders, rules and policy; rulesets and lists of the operator.
//!
//! Invariants checked: both engines answer the same, every rendering is one line of valid JSON with the given id.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tld_config::Role;
use tld_model::{Alert, Event, Frame, QUEUE_LOCAL, RawJson, Timestamp, Zone};
use tld_policy::Policy;
use tld_rules::{Analyzer, Engine, Mode, Options, Ruleset, Settings};
use tld_xml::Source;

use crate::texts::shown;

pub(crate) const LOG_WORDS: &[&str] = &[
    "sshd[1]: ",
    "Failed password for ",
    "invalid user ",
    " from 192.0.2.1 port 22",
    "::ffff:192.0.2.1",
    "<34>",
    "\n",
    "\n!2:192.0.2.9\n",
    "\n!+3600\n",
    "Nov 22 10:00:00 host ",
    "2026-11-22T10:00:00.123456+01:00 host ",
    "192.0.2.1 - - [22/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 404 1",
    "pam_unix(sshd:auth): authentication failure; ",
    "rhost=",
    "user=",
    "type=SYSCALL msg=audit(1:2): ",
    "ossec: output: 'x': ",
    "\u{202e}",
    "%s%n",
    "{\"a\":1}",
    "(name) any->/var/log/x ",
];
pub(crate) const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "null",
    "true",
    "-0",
    "1e999",
    "\"srcip\":\"192.0.2.1\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\udc00\"",
    ",",
    ":",
    "\"parameters\":",
    "\"alert\":{}",
    "\"version\":1",
    "\"command\":\"add\"",
    "\"origin\":{\"name\":null,\"module\":\"x\"}",
    "[[[[[[[[",
    "{\"a\":{\"a\":",
    "18446744073709551616",
    "\n",
    "\"dstuser\":",
    "\"timestamp\":",
];
pub(crate) const LIST_WORDS: &[&str] =
    &[":", "\n", "#", "\"", "192.0.2.", "192.0.2.1:", "10.", "2001:db8:", "key:value", "\"a:b\":c", "%%\n"];
pub(crate) const RULESET_WORDS: &[&str] = &[
    "%%\n",
    "<decoder name=\"x\">",
    "</decoder>",
    "<program_name>",
    "<prematch offset=\"after_parent\">",
    "<regex type=\"pcre2\">",
    "<order>",
    "srcip, user",
    "<parent>",
    "<rule id=\"100001\" level=\"5\"",
    "frequency=\"2\" timeframe=\"10\"",
    "</rule>",
    "<if_sid>",
    "<if_matched_sid>",
    "<same_source_ip/>",
    "<different_url/>",
    "<description>$(srcip)",
    "<field name=\"",
    "<list field=\"srcip\" lookup=\"address_match_key\">etc/lists/l</list>",
    "overwrite=\"yes\"",
    "ignore=\"9\"",
    "<check_diff/>",
    "<time>6 pm - 8 am</time>",
    "<weekday>",
    "<group name=\"g,\">",
    "<var name=\"V\">",
    "$V",
    "<plugin_decoder>JSON_Decoder</plugin_decoder>",
    "<accumulate/>",
    "<fts>name, srcip</fts>",
    "<if_fts/>",
    "noalert=\"1\"",
];

const START: i64 = 1_795_381_200;
/// More lines only repeat; they would hide a slow one.
const MOST_LINES: usize = 64;

struct Shipped {
    ruleset: Arc<Ruleset>,
    policy: Policy,
}

fn shipped() -> &'static Shipped {
    static SHIPPED: OnceLock<Shipped> = OnceLock::new();
    SHIPPED.get_or_init(|| {
        let (decoders, rules) = tld_server::shipped::texts();
        let loaded = Ruleset::load(&decoders, &rules, &[], &Options::default());
        let ruleset = loaded.ruleset.expect("the shipped ruleset loads");
        let conf = tld_config::demo_conf(std::path::Path::new("/var/log/auth.log"));
        let config = tld_config::parse(&Source::new("demo", conf.into_bytes()), Role::Standalone);
        let policy = Policy::new(&config.settings, &ruleset);
        Shipped { ruleset, policy }
    })
}

/// Lines as events a second apart. `!2:192.0.2.9` sets queue and location of the next ones, `!+60` lets a minute pass.
fn events(data: &[u8]) -> Vec<Event> {
    let (mut queue, mut location, mut now) =
        (QUEUE_LOCAL, "/var/log/auth.log".to_owned(), Timestamp::from_secs(START));
    let mut events = Vec::new();
    for line in data.split(|byte| *byte == b'\n').take(MOST_LINES) {
        now = now.plus(Duration::from_secs(1));
        match line {
            [b'!', b'+', seconds @ ..] => {
                let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse::<u32>().ok());
                now = now.plus(Duration::from_secs(seconds.unwrap_or(0).into()));
            }
            [b'!', kind, b':', place @ ..] => {
                queue = *kind;
                location = String::from_utf8_lossy(place).into_owned();
            }
            _ => {
                let mut event = Event::local(&location, line, now);
                event.queue = queue;
                events.push(event);
            }
        }
    }
    events
}

/// The members of one line of JSON, whatever the event held. Bytes that are no UTF-8 stay as they came, by contract, and
/// nesting is as deep as the event's: therefore text is made first, and values are left unread.
fn rendered(frame: &Frame) -> BTreeMap<String, RawJson> {
    let mut line = Vec::new();
    frame.write("1795381200.77", &mut line);
    assert!(!line.contains(&b'\n'), "a rendering of two lines");
    let text = String::from_utf8_lossy(&line);
    let members = serde_json::from_str(&text);
    assert!(members.is_ok(), "a rendering is valid JSON: {:?} in {text}", members.err());
    members.unwrap_or_default()
}

fn judge(ruleset: &Arc<Ruleset>, mode: Mode, events: &[Event], mut seen: impl FnMut(&Alert)) {
    let settings = Settings { mode, zone: Zone::fixed(3600), ..Settings::default() };
    let mut serving = Analyzer::new(Arc::clone(ruleset), settings.clone());
    let mut plain = Analyzer::with_engine(Engine::Reference, Arc::clone(ruleset), settings);
    for event in events {
        let verdict = serving.analyze(event);
        let (other, _) = plain.analyze_traced(event);
        let winner =
            |verdict: &tld_rules::Verdict<'_>| verdict.rule.as_ref().map(|rule| (rule.id, rule.level));
        assert_eq!(winner(&verdict), winner(&other), "two engines of one meaning");
        assert_eq!(verdict.alert, other.alert, "two engines of one meaning");
        if let Some(alert) = &verdict.alert {
            let members = rendered(&alert.json);
            let id = members.get("id").map(|id| id.get());
            assert_eq!(id, Some("\"1795381200.77\""), "the id is the one that was given");
            seen(alert);
        }
        rendered(&serving.event_json(&verdict));
    }
}

/// Log lines with the shipped ruleset and the demonstration's responses.
pub fn event(data: &[u8]) {
    let Shipped { ruleset, policy } = shipped();
    let events = events(data);
    for mode in [Mode::Daemon, Mode::Logtest] {
        judge(ruleset, mode, &events, |alert| {
            for decision in policy.decide(alert) {
                let contested = alert.contested.iter().any(|(field, _)| *field == "srcip");
                assert!(
                    !contested || decision.outcome.is_err(),
                    "a response to an address that the line could have framed"
                );
            }
        });
    }
}

/// The bytes as the members of one JSON event, so that most inputs reach the JSON decoder.
pub fn json(data: &[u8]) {
    let mut text = Vec::with_capacity(data.len() + 2);
    text.push(b'{');
    text.extend(data.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
    text.push(b'}');
    event(&text);
}

/// A list and, behind a line `%%`, events that are looked up in it by every kind of lookup.
pub fn lists(data: &[u8]) {
    const DECODER: &str = r#"<decoder name="l"><prematch>^k </prematch><regex type="pcre2">^k (\S*) ?(.*)</regex><order>srcip, extra_data</order></decoder>"#;
    const RULES: &str = r#"<group name="l,"><rule id="1" level="3"><decoded_as>l</decoded_as><description>k</description></rule>
<rule id="2" level="4"><if_sid>1</if_sid><list field="srcip" lookup="match_key">etc/lists/l</list><description>a $(srcip)</description></rule>
<rule id="3" level="5"><if_sid>1</if_sid><list field="srcip" lookup="address_match_key">etc/lists/l</list><description>b</description></rule>
<rule id="4" level="6"><if_sid>1</if_sid><list field="srcip" lookup="match_key_value" check_value="^v">etc/lists/l</list><description>c</description></rule>
<rule id="5" level="7"><if_sid>1</if_sid><list field="srcip" lookup="address_match_key_value" check_value="v">etc/lists/l</list><description>d</description></rule>
<rule id="6" level="8"><if_sid>1</if_sid><list field="srcip" lookup="not_match_key">etc/lists/l</list><description>e</description></rule></group>"#;
    let [list, lines, ..] = parts(data);
    let list = Source::new("etc/lists/l", list);
    let loaded = Ruleset::load(
        &[Source::new("d.xml", DECODER.as_bytes())],
        &[Source::new("r.xml", RULES.as_bytes())],
        &[list],
        &Options::default(),
    );
    let ruleset = loaded.ruleset.expect("no list refuses a ruleset");
    let mut events = events(lines);
    for event in &mut events {
        event.text.splice(0..0, *b"k ");
    }
    judge(&ruleset, Mode::Daemon, &events, |_| ());
}

/// Decoders, rules, a list and events, divided by lines `%%`.
pub fn ruleset(data: &[u8]) {
    let [decoders, rules, list, lines] = parts(data);
    let decoders = Source::new("d.xml", decoders);
    let rules = Source::new("r.xml", rules);
    let list = Source::new("etc/lists/l", list);
    let options = Options { max_memory_bytes: 1 << 20, ..Options::default() };
    let loaded = Ruleset::load(from_ref(&decoders), from_ref(&rules), from_ref(&list), &options);
    for one in &loaded.diagnostics {
        let source = [&decoders, &rules, &list].into_iter().find(|source| source.name == one.file);
        source.into_iter().for_each(|source| shown(source, one));
    }
    assert_eq!(loaded.ruleset.is_none(), loaded.diagnostics.iter().any(tld_xml::Diagnostic::is_error));
    if let Some(ruleset) = loaded.ruleset {
        judge(&ruleset, Mode::Daemon, &events(lines), |_| ());
    }
}

fn parts(data: &[u8]) -> [&[u8]; 4] {
    let mut rest = data;
    let mut parts: [&[u8]; 4] = [&[]; 4];
    for part in &mut parts {
        let mark = rest.windows(3).position(|window| window == b"%%\n");
        *part = &rest[..mark.unwrap_or(rest.len())];
        rest = mark.and_then(|mark| rest.get(mark + 3..)).unwrap_or_default();
    }
    parts
}
