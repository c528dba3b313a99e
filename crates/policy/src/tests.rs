use std::sync::Arc;

use tld_config::{Role, Settings};
use tld_model::{AgentId, Alert, AlertRule, Frame, RuleId, Target, Timestamp};
use tld_rules::{Options, Ruleset};
use tld_xml::Source;

use super::*;

const RULES: &str = r#"<group name="syslog,sshd,">
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>root</description></rule>
  <rule id="100001" level="10"><match>ten</match><description>ten</description><group>authentication_failures,</group></rule>
  <rule id="100002" level="5"><match>five</match><description>five</description></rule>
  <rule id="100003" level="0"><match>zero</match><description>zero</description></rule>
  <rule id="100004" level="12"><match>no</match><options>no_ar</options><description>no response</description></rule>
</group>
<group name="active_response,">
  <rule id="100651" level="3"><match>blocked</match><description>blocked</description></rule>
</group>"#;

fn ruleset() -> Arc<Ruleset> {
    let rules = [Source::new("rules.xml", RULES.as_bytes())];
    let loaded = Ruleset::load(&[], &rules, &[], &Options::default());
    loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

fn settings(responses: &str) -> Settings {
    let text = format!(
        "<ossec_config><global><white_list>192.0.2.0/24</white_list><white_list>2001:db8:1::/48</white_list>\
         <white_list>^trusted.</white_list></global>\
         <command><name>drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>\
         <command><name>lock</name><executable>disable-account</executable><timeout_allowed>yes</timeout_allowed></command>\
         <command><name>chat</name><executable>wazuh-slack</executable></command>\
         <command><name>own</name><executable>my-script</executable></command>{responses}</ossec_config>"
    );
    let loaded = tld_config::parse(&Source::new("ossec.conf", text.into_bytes()), Role::Manager);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.settings
}

fn policy(responses: &str) -> Policy {
    Policy::new(&settings(responses), &ruleset())
}

fn response(command: &str, rest: &str) -> String {
    format!("<active-response><command>{command}</command><location>local</location>{rest}</active-response>")
}

fn alert(rule: u32, srcip: Option<&str>, dstuser: Option<&str>) -> Alert {
    let ruleset = ruleset();
    let info = ruleset.rule(RuleId(rule)).unwrap();
    Alert {
        at: Timestamp::EPOCH,
        rule: AlertRule::new(info.id, info.level, b"", &info.groups),
        agent: Arc::default(),
        json: Frame::around(b"{", b"}"),
        plain: Frame::default(),
        srcip: srcip.map(|text| text.as_bytes().to_vec()),
        dstuser: dstuser.map(|text| text.as_bytes().to_vec()),
        logged: true,
        mail: false,
        no_response: info.no_ar,
        contested: vec![],
    }
}

fn bound(responses: &str) -> Vec<u32> {
    let policy = policy(responses);
    ruleset().rules().filter(|rule| policy.bound(rule.id).next().is_some()).map(|rule| rule.id.0).collect()
}

#[test]
fn level_and_group_are_and_ids_are_or_on_top() {
    let group = "<rules_group>authentication_failures|nothing</rules_group>";
    let table = [
        ("<level>5</level>", vec![100_001, 100_002]),
        (group, vec![100_001]),
        ("<rules_group>SSHD</rules_group>", vec![100_001, 100_002]),
        ("<level>11</level><rules_group>sshd</rules_group>", vec![]),
        ("<rules_id>100002</rules_id>", vec![100_002]),
        ("<level>10</level><rules_id>100002</rules_id>", vec![100_001, 100_002]),
        (
            "<level>11</level><rules_group>sshd</rules_group><rules_id>100002,100003,100004</rules_id>",
            vec![100_002],
        ),
    ];
    for (condition, expected) in table {
        let mut found = bound(&response("drop", condition));
        found.sort_unstable();
        assert_eq!(found, expected, "{condition}");
    }
}

fn verdicts(policy: &Policy, alert: &Alert) -> Vec<Result<Destination, Reason>> {
    policy.decide(alert).into_iter().map(|decision| decision.outcome).collect()
}

#[test]
fn an_allow_listed_address_stops_only_what_uses_addresses() {
    let responses: String =
        ["drop", "lock", "chat", "own"].iter().map(|name| response(name, "<level>5</level>")).collect();
    let policy = policy(&responses);
    let listed = |entry: &str| Err(Reason::AllowListed { entry: entry.into() });
    let here = || Ok(Destination::Here);
    let table = [
        ("192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1::9", "2001:db8:1::/48"),
        ("trusted.example", "^trusted."),
    ];
    for (address, entry) in table {
        let found = verdicts(&policy, &alert(100_001, Some(address), Some("bob")));
        assert_eq!(found, [listed(entry), here(), here(), listed(entry)], "{address}");
    }
    let found = verdicts(&policy, &alert(100_001, Some("203.0.113.7"), None));
    assert_eq!(found, [here(), here(), here(), here()]);
}

#[test]
fn a_host_name_as_source_is_a_reason_for_what_needs_an_address() {
    let policy = policy(&response("drop", "<level>5</level>"));
    let found = verdicts(&policy, &alert(100_001, Some("UNKNOWN"), None));
    assert_eq!(found, [Err(Reason::NoAddress { source: Some("UNKNOWN".into()) })]);
}

#[test]
fn a_strange_user_name_never_stops_a_block() {
    let policy = policy(&response("drop", "<level>5</level>"));
    let decisions = policy.decide(&alert(100_001, Some("203.0.113.7"), Some("a$b; DOMAIN\\x y")));
    assert_eq!(decisions[0].outcome, Ok(Destination::Here));
    assert_eq!(decisions[0].target, Target::Address("203.0.113.7".parse().unwrap()));
}

#[test]
fn a_mapped_address_is_blocked_as_ipv4() {
    let policy = policy(&response("drop", "<level>5</level>"));
    let decisions = policy.decide(&alert(100_001, Some("::ffff:203.0.113.7"), None));
    assert_eq!(decisions[0].target, Target::Address("203.0.113.7".parse().unwrap()));
}

#[test]
fn a_contested_address_is_refused_unless_the_operator_chose() {
    let mut contested = alert(100_001, Some("203.0.113.9"), None);
    contested.contested = vec![("srcip", b"198.51.100.5".to_vec())];
    let decide = |choice: &str| {
        let policy = policy(&response("drop", &format!("<level>5</level>{choice}")));
        let decisions = policy.decide(&contested);
        (decisions[0].target.to_string(), decisions[0].outcome.clone())
    };
    let (_, refused) = decide("");
    assert!(matches!(refused, Err(Reason::Contested { field: "srcip", .. })), "{refused:?}");
    assert_eq!(decide("<contested>first</contested>"), ("203.0.113.9".into(), Ok(Destination::Here)));
    assert_eq!(decide("<contested>last</contested>"), ("198.51.100.5".into(), Ok(Destination::Here)));
}

#[test]
fn a_contested_address_does_not_stop_what_acts_on_the_user() {
    let mut contested = alert(100_001, Some("203.0.113.9"), Some("bob"));
    contested.contested = vec![("srcip", b"198.51.100.5".to_vec())];
    let policy = policy(&response("lock", "<level>5</level>"));
    let decisions = policy.decide(&contested);
    assert_eq!(decisions[0].outcome, Ok(Destination::Here));
    assert_eq!(decisions[0].target, Target::User("bob".into()));
}

#[test]
fn the_responses_own_log_is_answered_only_when_named() {
    let own = alert(100_651, Some("203.0.113.7"), None);
    assert_eq!(verdicts(&policy(&response("drop", "<level>3</level>")), &own), [Err(Reason::OwnLog)]);
    for named in ["<rules_id>100651</rules_id>", "<rules_group>active_response</rules_group>"] {
        assert_eq!(verdicts(&policy(&response("drop", named)), &own), [Ok(Destination::Here)], "{named}");
    }
}

#[test]
fn destinations_follow_the_contracts_order() {
    let of = |location: &str, agent: u32| {
        let text = format!(
            "<active-response><command>drop</command><location>{location}</location><agent_id>7</agent_id>\
             <level>5</level></active-response>"
        );
        let mut alert = alert(100_001, Some("203.0.113.7"), None);
        alert.agent = Arc::new(tld_model::Agent { id: AgentId(agent), ..Default::default() });
        verdicts(&policy(&text), &alert).remove(0).unwrap()
    };
    assert_eq!(of("local", 0), Destination::Here);
    assert_eq!(of("local", 3), Destination::Agent(AgentId(3)));
    assert_eq!(of("server", 3), Destination::Here);
    assert_eq!(of("defined-agent", 3), Destination::Agent(AgentId(7)));
    assert_eq!(of("all", 3), Destination::All);
    assert_eq!(of("local,server", 3), Destination::Here);
}

#[test]
fn a_windows_address_is_used_and_checked_where_srcip_is_no_address() {
    let mut alert = alert(100_001, Some("-"), None);
    alert.json = Frame::around(
        br#"{"id":""#,
        br#"","data":{"win":{"eventdata":{"ipAddress":"-","destinationIp":"192.0.2.9"}}}}"#,
    );
    let found = verdicts(&policy(&response("drop", "<level>5</level>")), &alert);
    assert_eq!(found, [Err(Reason::AllowListed { entry: "192.0.2.0/24".into() })]);
}
