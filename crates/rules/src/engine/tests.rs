//! The indexed engine answers as the reference does.

use std::sync::Arc;

use proptest::prelude::*;
use tld_model::{Agent, AgentId, Event, RuleId, Timestamp};
use tld_xml::Source;

use crate::{Analyzer, Engine, Mode, Options, Ruleset, Settings, Texts};

const DECODERS: &str = r#"
<decoder name="probe"><program_name>^probe$</program_name></decoder>
<decoder name="probe-fields"><parent>probe</parent>
  <regex>(\w+) (\S+) user (\w+) colour (\w+)</regex><order>status, srcip, dstuser, colour</order></decoder>"#;

/// Two rules that events end in, one of them below two parents, and composite rules of all kinds above them.
const BASE: &str = r#"
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>root</description></rule>
  <rule id="100" level="3"><decoded_as>probe</decoded_as><description>any</description></rule>
  <rule id="101" level="4"><if_sid>100</if_sid><status>bad</status><description>bad</description></rule>
  <rule id="102" level="4"><if_sid>100</if_sid><match>never</match><description>never</description></rule>
  <rule id="103" level="5"><if_sid>101, 102</if_sid><user>root</user><group>twice,</group>
    <description>bad root</description></rule>"#;

#[derive(Debug, Clone)]
struct Composite {
    target: usize,
    frequency: u32,
    timeframe: u32,
    level: u8,
    conditions: Vec<usize>,
}

const TARGETS: [&str; 5] = [
    "<if_matched_sid>100</if_matched_sid>",
    "<if_matched_sid>101</if_matched_sid>",
    "<if_matched_group>twice</if_matched_group>",
    "<if_sid>100</if_sid><if_matched_regex>user r</if_matched_regex>",
    "<if_sid>100</if_sid><if_matched_group>multi</if_matched_group>",
];

const CONDITIONS: [&str; 10] = [
    "<same_srcip/>",
    "<same_user/>",
    "<same_location/>",
    "<same_field>colour</same_field>",
    "<same_field>user</same_field>",
    "<global_frequency/>",
    "<different_srcip/>",
    "<different_user/>",
    "<different_field>colour</different_field>",
    "<same_status/>",
];

impl Composite {
    fn text(&self, id: usize) -> String {
        let conditions: String = self.conditions.iter().map(|which| CONDITIONS[*which]).collect();
        format!(
            "<rule id=\"{id}\" level=\"{}\" frequency=\"{}\" timeframe=\"{}\">{}{conditions}\
             <group>multi,</group><description>composite</description></rule>",
            self.level, self.frequency, self.timeframe, TARGETS[self.target]
        )
    }
}

fn composite() -> impl Strategy<Value = Composite> {
    let conditions = proptest::collection::vec(0..CONDITIONS.len(), 0..3);
    (0..TARGETS.len(), 2..6_u32, 1..20_u32, 5..12_u8, conditions).prop_map(
        |(target, frequency, timeframe, level, conditions)| Composite {
            target,
            frequency,
            timeframe,
            level,
            conditions,
        },
    )
}

#[derive(Debug, Clone)]
struct Step {
    later: i64,
    agent: u32,
    fields: [usize; 4],
}

fn step() -> impl Strategy<Value = Step> {
    let later = prop_oneof![6 => 0..3_i64, 1 => 3..25_i64, 1 => Just(-70_i64), 1 => Just(-2_i64)];
    (later, 0..2_u32, [0..2_usize, 0..3_usize, 0..2_usize, 0..3_usize])
        .prop_map(|(later, agent, fields)| Step { later, agent, fields })
}

fn ruleset(composites: &[Composite]) -> Arc<Ruleset> {
    ruleset_with(composites, &Options::default())
}

fn ruleset_with(composites: &[Composite], options: &Options) -> Arc<Ruleset> {
    let rules: String = composites.iter().enumerate().map(|(at, rule)| rule.text(200 + at)).collect();
    let rules = format!("<group name=\"test,\">{BASE}{rules}</group>");
    let sources = |name: &str, text: &str| [Source::new(name, text.as_bytes())];
    let loaded = Ruleset::load(&sources("d", DECODERS), &sources("r", &rules), &[], options);
    loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

/// What of a verdict two engines must agree on.
type Answer = (Option<RuleId>, Texts, u32, bool);

fn answers(engine: Engine, mode: Mode, rules: [&Arc<Ruleset>; 2], steps: &[Step]) -> Vec<Answer> {
    let settings = Settings { mode, ..Settings::default() };
    let mut analyzer = Analyzer::with_engine(engine, Arc::clone(rules[0]), settings);
    let mut now = 1_000_000;
    let answer = |(at, step): (usize, &Step)| {
        if at == steps.len() / 2 {
            analyzer.swap(Arc::clone(rules[1]));
        }
        now += step.later;
        let [status, ip, user, colour] = step.fields;
        let (status, user) = (["bad", "good"][status], ["root", "rosa"][user]);
        let colour = ["red", "blue", "-"][colour];
        let text = format!("Jan  1 00:00:00 h probe: {status} 192.0.2.{ip} user {user} colour {colour} {at}");
        let mut event = Event::local("x", text, Timestamp::from_secs(now));
        event.agent = Arc::new(Agent { id: AgentId(step.agent), ..Agent::default() });
        let verdict = analyzer.analyze(&event);
        let rule = verdict.rule.as_ref();
        (
            rule.map(|rule| rule.id),
            verdict.last_events.clone(),
            rule.map_or(0, |rule| rule.fired),
            verdict.alert_flag,
        )
    };
    steps.iter().enumerate().map(answer).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn both_engines_give_the_same_answers_and_a_reload_of_the_same_text_changes_none(
        composites in proptest::collection::vec(composite(), 1..5),
        steps in proptest::collection::vec(step(), 0..80),
        logtest in any::<bool>(),
    ) {
        let (rules, again) = (ruleset(&composites), ruleset(&composites));
        let mode = if logtest { Mode::Logtest } else { Mode::Daemon };
        let run = |engine, second| answers(engine, mode, [&rules, second], &steps);
        let wanted = run(Engine::Reference, &rules);
        prop_assert_eq!(&wanted, &run(Engine::Indexed, &rules));
        prop_assert_eq!(&wanted, &run(Engine::Indexed, &again));
        prop_assert_eq!(&wanted, &run(Engine::Reference, &again));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// So small a memory packs most of what it remembers, and is still large enough for all of it.
    #[test]
    fn both_engines_agree_on_hundreds_of_attackers_whose_events_are_packed_and_carried_over(
        composites in proptest::collection::vec(composite(), 1..5),
        longer in 1..15_u32,
        seed in any::<u64>(),
    ) {
        let longer = |rule: &Composite| Composite { timeframe: rule.timeframe * longer, ..rule.clone() };
        let composites: Vec<Composite> = composites.iter().map(longer).collect();
        let options = Options { max_memory_bytes: 768 << 10, ..Options::default() };
        let (rules, again) = (ruleset_with(&composites, &options), ruleset_with(&composites, &options));
        let mut state = seed | 1;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut step = |_| Step {
            later: i64::from(next(8) == 0),
            agent: next(2) as u32,
            fields: [next(2), next(200), next(2), next(3)],
        };
        let steps: Vec<Step> = (0..1_500).map(&mut step).collect();
        let wanted = answers(Engine::Reference, Mode::Daemon, [&rules, &rules], &steps);
        prop_assert_eq!(&wanted, &answers(Engine::Indexed, Mode::Daemon, [&rules, &rules], &steps));
        prop_assert_eq!(&wanted, &answers(Engine::Indexed, Mode::Daemon, [&rules, &again], &steps));
    }
}

#[test]
fn one_noisy_address_cannot_push_out_the_others_nor_grow_without_bound() {
    let rule = Composite { target: 0, frequency: 5, timeframe: 10_000, level: 9, conditions: vec![0] };
    let mut analyzer = Analyzer::new(ruleset(&[rule]), Settings::default());
    let mut win = |ip: &str, at: i64| {
        let text = format!("Jan  1 00:00:00 h probe: good {ip} user rosa colour red");
        let event = Event::local("x", text, Timestamp::from_secs(at));
        analyzer.analyze(&event).rule.map(|rule| rule.id.0)
    };
    for at in 0..4 {
        assert_eq!(win("192.0.2.1", at), Some(100));
    }
    for at in 0..5_000 {
        win("192.0.2.2", at);
    }
    assert_eq!(win("192.0.2.1", 5_000), Some(200));
    let (events, _, lost) = analyzer.memory();
    assert!(events < 20, "{events}");
    assert_eq!(lost, 0);
}

#[test]
fn the_byte_budget_holds_and_what_it_costs_is_counted() {
    let rule = Composite { target: 0, frequency: 5, timeframe: 10_000, level: 9, conditions: vec![0] };
    let rules = format!("<group name=\"test,\">{BASE}{}</group>", rule.text(200));
    let options = Options { max_memory_bytes: 100_000, ..Options::default() };
    let loaded = Ruleset::load(
        &[Source::new("d", DECODERS.as_bytes())],
        &[Source::new("r", rules.as_bytes())],
        &[],
        &options,
    );
    let mut analyzer = Analyzer::new(loaded.ruleset.unwrap(), Settings::default());
    for at in 0..10_000_u32 {
        let text = format!("Jan  1 00:00:00 h probe: good ip-{at} user rosa colour red");
        analyzer.analyze(&Event::local("x", text, Timestamp::from_secs(i64::from(at / 10))));
    }
    let (events, bytes, lost) = analyzer.memory();
    assert!(bytes <= 100_000 && events > 100, "{events} events, {bytes} bytes");
    assert_eq!(lost + events as u64, 10_000);
}
