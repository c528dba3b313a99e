use tld_model::{Agent, AgentId, Timestamp};
use tld_xml::Source;

use super::*;
use crate::{Loaded, Options};

const DECODERS: &str = r#"
<decoder name="probe"><program_name>^probe$</program_name></decoder>
<decoder name="probe-fields"><parent>probe</parent><prematch>^from </prematch>
  <regex>from (\S+) user (\S+)</regex><order>srcip, dstuser</order><fts>name, srcip</fts></decoder>"#;

/// A root for everything, and a rule that every event of the decoder matches.
const ROOTS: &str = r#"<group name="base,">
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>root</description></rule>
  <rule id="100" level="3"><decoded_as>probe</decoded_as><description>seen $(srcip)</description></rule>
</group>"#;

fn load(rules: &str) -> Loaded {
    let rules = format!("{ROOTS}<group name=\"test,\">{rules}</group>");
    Ruleset::load(
        &[Source::new("decoders", DECODERS.as_bytes())],
        &[Source::new("rules", rules.as_bytes())],
        &[],
        &Options::default(),
    )
}

fn analyzer(rules: &str) -> Analyzer {
    let loaded = load(rules);
    let problems: Vec<String> = loaded.diagnostics.iter().map(|problem| problem.render(false)).collect();
    Analyzer::new(loaded.ruleset.unwrap_or_else(|| panic!("{problems:#?}")), Settings::default())
}

fn event(secs: i64, ip: &str) -> Event {
    let text = format!("Jan  1 00:00:00 host probe: from {ip} user root");
    Event::local("/var/log/probe", text, Timestamp::from_secs(1_000_000 + secs))
}

/// Ids of the rules that the events at these seconds, from these addresses, end in.
fn ids(analyzer: &mut Analyzer, events: &[(i64, &str)]) -> Vec<u32> {
    let id = |(secs, ip): &(i64, &str)| {
        let event = event(*secs, ip);
        let verdict = analyzer.analyze(&event);
        verdict.rule.map_or(0, |rule| rule.id.0)
    };
    events.iter().map(id).collect()
}

const THREE: &str = r#"<rule id="200" level="10" frequency="3" timeframe="60">
  <if_matched_sid>100</if_matched_sid><same_srcip/><description>three</description></rule>"#;

#[test]
fn a_composite_rule_fires_on_the_nth_event_and_counts_anew() {
    let mut analyzer = analyzer(THREE);
    let a = "192.0.2.1";
    assert_eq!(ids(&mut analyzer, &[(0, a); 7]), [100, 100, 200, 100, 100, 200, 100]);
}

#[test]
fn events_of_another_address_or_outside_the_timeframe_do_not_count() {
    let (a, b) = ("192.0.2.1", "192.0.2.2");
    assert_eq!(
        ids(&mut analyzer(THREE), &[(0, a), (0, b), (0, a), (0, b), (0, b)]),
        [100, 100, 100, 100, 200]
    );
    assert_eq!(ids(&mut analyzer(THREE), &[(0, a), (1, a), (62, a), (62, a)]), [100; 4]);
    assert_eq!(ids(&mut analyzer(THREE), &[(0, a), (1, a), (60, a)]), [100, 100, 200]);
}

#[test]
fn events_of_another_agent_count_only_for_a_global_frequency() {
    let run = |rules: &str| {
        let mut analyzer = analyzer(rules);
        let mut last = 0;
        for agent in [1, 2, 3] {
            let mut event = event(0, "192.0.2.1");
            event.agent =
                Arc::new(Agent { id: AgentId(agent), registered_ip: "any".into(), ..Agent::default() });
            last = analyzer.analyze(&event).rule.map_or(0, |rule| rule.id.0);
        }
        last
    };
    assert_eq!(run(THREE), 100);
    assert_eq!(run(&THREE.replace("<same_srcip/>", "<global_frequency/>")), 200);
}

#[test]
fn an_event_counts_once_for_each_place_of_its_rule_in_a_group_list() {
    // 303 stands below 301 and 302, so each of its events enters the list of 400 twice.
    let mut analyzer = analyzer(
        r#"<rule id="301" level="4"><if_sid>100</if_sid><description>a</description></rule>
        <rule id="302" level="4"><if_sid>100</if_sid><match>never</match><description>b</description></rule>
        <rule id="303" level="5"><if_sid>301, 302</if_sid><description>c</description><group>doubled,</group></rule>
        <rule id="400" level="9" frequency="3" timeframe="60">
          <if_matched_group>doubled</if_matched_group><description>d</description></rule>"#,
    );
    assert_eq!(ids(&mut analyzer, &[(0, "192.0.2.1"); 2]), [303, 400]);
}

#[test]
fn the_ignore_window_hands_the_alert_to_the_parent_or_is_kept_per_value() {
    let rule = |by: &str| {
        format!(
            r#"<rule id="200" level="8" ignore="60" {by}><if_sid>100</if_sid><description>x</description></rule>"#
        )
    };
    let events = [(0, "192.0.2.1"), (1, "192.0.2.2"), (2, "192.0.2.1"), (60, "192.0.2.1"), (61, "192.0.2.2")];
    assert_eq!(ids(&mut analyzer(&rule("")), &events), [200, 100, 100, 200, 100]);
    assert_eq!(ids(&mut analyzer(&rule(r#"ignore_by="srcip""#)), &events), [200, 200, 100, 200, 200]);
}

#[test]
fn overwriting_keeps_the_place_and_replaces_the_conditions() {
    let mut analyzer = analyzer(
        r#"<rule id="200" level="8"><if_sid>100</if_sid><match>never</match><description>x</description></rule>
        <rule id="201" level="9"><if_sid>200</if_sid><description>child</description></rule>
        <rule id="200" level="5" overwrite="yes"><match>user root</match><description>y</description></rule>"#,
    );
    assert_eq!(ids(&mut analyzer, &[(0, "192.0.2.1")]), [201]);
    assert_eq!(analyzer.ruleset().rule(RuleId(200)).map(|rule| rule.level), Some(5));
}

#[test]
fn level_zero_siblings_come_first_and_end_the_search() {
    let mut analyzer = analyzer(
        r#"<rule id="200" level="15"><if_sid>100</if_sid><description>loud</description></rule>
        <rule id="201" level="0"><if_sid>100</if_sid><match>user root</match><description>quiet</description></rule>"#,
    );
    let event = event(0, "192.0.2.1");
    let verdict = analyzer.analyze(&event);
    assert_eq!(verdict.rule.as_ref().map(|rule| rule.id), Some(RuleId(201)));
    assert!(verdict.alert.is_none());
    assert_eq!(analyzer.suppressed().next().map(|(_, counts)| counts.level0), Some(1));
}

#[test]
fn first_time_keys_are_handed_out_once_and_taken_back() {
    let rules =
        r#"<rule id="200" level="8"><if_sid>100</if_sid><if_fts/><description>new</description></rule>"#;
    let mut first = analyzer(rules);
    let event = event(0, "192.0.2.1");
    let effects = first.analyze(&event).effects;
    let [Effect::Fts(key)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(String::from_utf8_lossy(key), "probe    192.0.2.1    ");
    assert!(first.analyze(&event).effects.is_empty());
    let mut second = analyzer(rules);
    second.restore_fts([key.as_slice()]);
    assert_eq!(second.analyze(&event).rule.map(|rule| rule.id.0), Some(100));
}

#[test]
fn a_first_time_asked_for_twice_is_asked_once() {
    let mut analyzer = analyzer(
        r#"<rule id="200" level="8"><if_sid>100</if_sid><if_fts/><if_fts/><description>new</description></rule>"#,
    );
    assert_eq!(ids(&mut analyzer, &[(0, "192.0.2.1"), (1, "192.0.2.1")]), [200, 100]);
}

#[test]
fn surplus_fields_of_a_rule_are_one_error() {
    let fields = r#"<field name="f">x</field>"#.repeat(300);
    let loaded = load(&format!(r#"<rule id="200" level="1">{fields}<description>x</description></rule>"#));
    let messages: Vec<_> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.message.clone()).collect();
    assert_eq!(messages, ["more `field` elements than `decoder_order_size` allows (256)"]);
}

#[test]
fn a_difference_needs_two_texts_and_shows_the_older() {
    let mut analyzer = analyzer(
        r#"<rule id="200" level="8"><if_sid>100</if_sid><check_diff/><description>changed</description></rule>"#,
    );
    assert_eq!(ids(&mut analyzer, &[(0, "192.0.2.1"), (1, "192.0.2.1")]), [100, 100]);
    let event = event(2, "192.0.2.2");
    let verdict = analyzer.analyze(&event);
    assert_eq!(verdict.rule.as_ref().map(|rule| rule.id.0), Some(200));
    assert_eq!(verdict.previous_log.as_deref(), Some(&b"from 192.0.2.1 user root"[..]));
}

#[test]
fn a_swap_keeps_the_memory_of_rules_that_did_not_change() {
    let mut analyzer = analyzer(THREE);
    let a = "192.0.2.1";
    assert_eq!(ids(&mut analyzer, &[(0, a), (1, a)]), [100, 100]);
    let more = format!(
        "{THREE}<rule id=\"999\" level=\"1\"><if_sid>100</if_sid><match>never</match><description>n</description></rule>"
    );
    analyzer.swap(load(&more).ruleset.unwrap());
    assert_eq!(ids(&mut analyzer, &[(2, a)]), [200]);
}

#[test]
fn wrong_rules_refuse_the_whole_set_and_skipped_ones_do_not() {
    for wrong in [
        r#"<rule id="1234567" level="1"><description>x</description></rule>"#,
        r#"<rule id="200" level="17"><description>x</description></rule>"#,
        r#"<rule id="200" level="1"></rule>"#,
        r#"<rule id="200" level="1"><color>x</color><description>x</description></rule>"#,
        r#"<rule id="200" level="1" frequency="3"><description>x</description></rule>"#,
        r#"<rule id="200" level="1"><same_srcip/><description>x</description></rule>"#,
        r#"<rule id="200" level="1"><decoded_as>nobody</decoded_as><description>x</description></rule>"#,
        r#"<rule id="200" level="1"><field name="srcip">x</field><description>x</description></rule>"#,
        r#"<rule id="200" level="1"><weekday>!monday</weekday><description>x</description></rule>"#,
        r#"<rule id="200" level="1" ignore_by="srcip"><description>x</description></rule>"#,
    ] {
        assert!(load(wrong).ruleset.is_none(), "{wrong}");
    }
    for skipped in [
        r#"<rule id="200" level="1"><if_sid>5x</if_sid><description>x</description></rule>"#,
        r#"<rule id="200" level="1"><if_sid>9999</if_sid><description>x</description></rule>"#,
        r#"<rule id="100" level="1"><description>x</description></rule>"#,
        r#"<rule id="200" level="1"><list field="url">nowhere</list><description>x</description></rule>"#,
    ] {
        let loaded = load(skipped);
        assert_eq!(loaded.ruleset.map(|ruleset| ruleset.counts().rules), Some(2), "{skipped}");
        assert_eq!(loaded.diagnostics.len(), 1, "{skipped}");
    }
}

#[test]
fn repeated_elements_are_joined() {
    let mut analyzer = analyzer(
        r#"<rule id="200" level="8"><if_sid>1</if_sid><if_sid>00</if_sid>
        <match>user ro</match><match>ot</match><description>x</description></rule>"#,
    );
    assert_eq!(ids(&mut analyzer, &[(0, "192.0.2.1")]), [200]);
}

#[test]
fn an_alert_leaves_a_gap_for_its_id_in_both_forms() {
    let mut analyzer = analyzer(THREE);
    let event = event(0, "192.0.2.1");
    let verdict = analyzer.analyze(&event);
    let alert = verdict.alert.unwrap();
    let written = |frame: &Frame| {
        let mut out = Vec::new();
        frame.write("1.2", &mut out);
        String::from_utf8(out).unwrap()
    };
    let json = written(&alert.json);
    assert!(json.starts_with(r#"{"timestamp":"1970-01-12T13:46:40.000+0000","rule":{"level":3,"#), "{json}");
    assert!(json.contains(r#""manager":{"name":"localhost"},"id":"1.2","full_log":"#), "{json}");
    assert_eq!(
        written(&alert.plain),
        "** Alert 1.2: - base,\n1970 Jan 12 13:46:40 host->/var/log/probe\n\
         Rule: 100 (level 3) -> 'seen 192.0.2.1'\nSrc IP: 192.0.2.1\nUser: root\n\
         Jan  1 00:00:00 host probe: from 192.0.2.1 user root\n\n"
    );
}

#[test]
fn counters_start_again_at_a_full_hour() {
    let mut analyzer = analyzer("");
    // The epoch's millionth second is 13:46:40.
    let mut fired = |secs| {
        let event = event(secs, "192.0.2.1");
        analyzer.analyze(&event).rule.map_or(0, |rule| rule.fired)
    };
    assert_eq!([fired(0), fired(799), fired(800), fired(801)], [1, 2, 1, 2]);
}

#[test]
fn an_agents_alert_shows_its_name_address_labels_and_inner_location() {
    let mut analyzer = analyzer("");
    let mut event = event(0, "192.0.2.1");
    event.agent = Arc::new(Agent {
        id: AgentId(7),
        name: "web".into(),
        registered_ip: "any".into(),
        ip: Some("198.51.100.7".into()),
        labels: vec![("site.room".into(), "12".into())],
    });
    let verdict = analyzer.analyze(&event);
    let mut json = Vec::new();
    verdict.alert.as_ref().unwrap().json.write("1.2", &mut json);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        json["agent"],
        serde_json::json!({"id": "007", "name": "web", "ip": "198.51.100.7", "labels": {"site": {"room": "12"}}})
    );
    assert_eq!(json["location"], "/var/log/probe");
    assert_eq!(verdict.alert.unwrap().rule.id, RuleId(100));
}

#[test]
fn a_firewall_event_that_lacks_a_field_reaches_no_rule_in_the_service() {
    let decoders =
        DECODERS.replace("<prematch>^from </prematch>", "<prematch>^from </prematch><type>firewall</type>");
    let rules = r#"<group name="t"><rule id="2" level="3"><category>firewall</category>
        <description>fw</description></rule></group>"#;
    let loaded = Ruleset::load(
        &[Source::new("d", decoders.as_bytes())],
        &[Source::new("r", rules.as_bytes())],
        &[],
        &Options::default(),
    );
    let ruleset = loaded.ruleset.unwrap();
    let rule = |mode| {
        let mut analyzer = Analyzer::new(Arc::clone(&ruleset), Settings { mode, ..Settings::default() });
        let event = event(0, "192.0.2.1");
        let (verdict, trace) = analyzer.analyze_traced(&event);
        (verdict.rule.map(|rule| rule.id.0), trace.dropped)
    };
    assert_eq!(rule(Mode::Logtest), (Some(2), false));
    assert_eq!(rule(Mode::Daemon), (None, true));
}

#[test]
fn events_prepared_and_finished_on_other_threads_are_judged_alike() {
    let mut whole = analyzer(THREE);
    let mut judge = analyzer(THREE);
    let events: Vec<Event> =
        (0..64).map(|n| event(n / 8, if n % 3 == 0 { "192.0.2.1" } else { "192.0.2.2" })).collect();
    let mut preparers: Vec<Preparer> = vec![judge.preparer(), judge.preparer()];
    let mut prepared: Vec<Option<Prepared<'_>>> =
        std::iter::repeat_with(|| None).take(events.len()).collect();
    std::thread::scope(|scope| {
        for (preparer, (slots, events)) in
            preparers.iter_mut().zip(prepared.chunks_mut(32).zip(events.chunks(32)))
        {
            scope.spawn(move || {
                for (slot, event) in slots.iter_mut().zip(events) {
                    *slot = Some(preparer.prepare(event));
                }
            });
        }
    });
    for (number, (event, prepared)) in events.iter().zip(prepared).enumerate() {
        let mut prepared = prepared.unwrap();
        judge.judge(&mut prepared);
        preparers[number % 2].finish(&mut prepared);
        assert_eq!(prepared.into_verdict().alert, whole.analyze(event).alert);
    }
}

#[test]
fn an_event_prepared_under_other_rules_is_prepared_anew() {
    let mut analyzer = analyzer(THREE);
    let mut stale = analyzer.preparer();
    let event = event(0, "192.0.2.1");
    let mut prepared = stale.prepare(&event);
    analyzer.swap(load("").ruleset.unwrap());
    analyzer.judge(&mut prepared);
    stale.finish(&mut prepared);
    assert_eq!(prepared.into_verdict().rule.map(|rule| rule.id.0), Some(100));
}

#[test]
fn a_line_that_makes_searches_too_costly_is_judged_without_them_and_says_so() {
    let rule = r#"<rule id="200" level="5"><if_sid>100</if_sid><regex type="pcre2">(?!\s)[^:]*: x(?!y)</regex>
      <description>costly</description></rule>"#;
    let mut analyzer = analyzer(rule);
    let text = format!("Jan  1 00:00:00 host probe: from 192.0.2.1 {}: xy", "a".repeat(60_000));
    let costly = Event::local("/var/log/probe", text, Timestamp::from_secs(1_000_000));
    let verdict = analyzer.analyze(&costly);
    assert_eq!((verdict.rule.map_or(0, |rule| rule.id.0), verdict.ended_searches), (100, 1));
    let usual = event(1, "192.0.2.1: xz");
    let verdict = analyzer.analyze(&usual);
    assert_eq!((verdict.rule.map_or(0, |rule| rule.id.0), verdict.ended_searches), (200, 0));
}
