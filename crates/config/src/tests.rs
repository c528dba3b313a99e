use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tld_model::{AgentId, Contract, RuleId};
use tld_xml::{Diagnostic, Severity, Source};

use super::*;

const HOST_DENY: &str = "<command><name>host-deny</name><executable>host-deny</executable>\
                         <timeout_allowed>yes</timeout_allowed></command>";
const NO_TIMEOUT: &str = "<command><name>note</name><executable>note.sh</executable></command>";

fn manager(body: &str) -> Loaded {
    read(body, Role::Manager)
}

fn read(body: &str, role: Role) -> Loaded {
    let text = format!("<ossec_config>{body}</ossec_config>");
    parse(&Source::new("etc/ossec.conf", text.into_bytes()), role)
}

fn response(children: &str) -> Loaded {
    manager(&format!("{HOST_DENY}{NO_TIMEOUT}<active-response>{children}</active-response>"))
}

fn codes(loaded: &Loaded, severity: Severity) -> Vec<Option<u16>> {
    loaded.diagnostics.iter().filter(|d| d.severity == severity).map(|d| d.code).collect()
}

fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|d| d.render(false)).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn each_error_of_a_response_has_its_code_and_yields_no_response() {
    let basis = "<command>host-deny</command><location>local</location><level>7</level>";
    let cases: &[(u16, &str)] = &[
        (1230, "<colour>red</colour>"),
        (1230, "<ca_verification>yes</ca_verification>"),
        (1235, "<level>21</level>"),
        (1235, "<level>+7</level>"),
        (1235, "<level>seven</level>"),
        (1235, "<disabled>maybe</disabled>"),
        (1235, "<timeout>10m</timeout>"),
        (1235, "<timeout>-1</timeout>"),
        (1235, "<timeout></timeout>"),
        (1235, "<timeout>4294967296</timeout>"),
        (1235, "<rules_id>5712, 100a</rules_id>"),
        (1235, "<rules_id>1234567</rules_id>"),
        (1235, "<contested>both</contested>"),
        (1235, "<ports>22,0</ports>"),
        (1235, "<ports>+22</ports>"),
        (1235, "<cut_connections>1</cut_connections>"),
        (1235, "<repeated_offenders>30,x</repeated_offenders>"),
        (1237, "<protected>10.0.0.300</protected>"),
        (1281, "<command></command>"),
        (1281, "<location/>"),
        (1302, "<location>company</location>"),
        (1302, "<location>local,basic</location>"),
        (1302, "<location>locale</location>"),
        (1302, "<location>,</location>"),
        (1303, "<command>host-denny</command>"),
        (1304, "<location>defined-agent</location>"),
    ];
    for (code, child) in cases {
        let loaded = response(&format!("{basis}{child}"));
        assert_eq!(codes(&loaded, Severity::Error), [Some(*code)], "{child}\n{}", shown(&loaded.diagnostics));
        assert!(loaded.settings.responses.is_empty(), "{child}");
        assert!(loaded.diagnostics.iter().all(|d| d.help.is_some()), "{child}");
    }
}

#[test]
fn each_error_of_a_command_has_its_code() {
    let cases: &[(u16, &str)] = &[
        (1280, "<name>x</name>"),
        (1280, "<executable>x</executable>"),
        (1280, "<name></name><executable>x</executable>"),
        (1235, "<name>!x</name><executable>x</executable>"),
        (1235, "<name>a - b</name><executable>x</executable>"),
        (1235, "<name>x</name><executable>../x</executable>"),
        (1235, "<name>x</name><executable>bin/x</executable>"),
        (1235, "<name>x</name><executable>x</executable><timeout_allowed>Yes</timeout_allowed>"),
        (1230, "<name>x</name><executable>x</executable><shell>sh</shell>"),
    ];
    for (code, children) in cases {
        let loaded = manager(&format!("<command>{children}</command>"));
        assert_eq!(codes(&loaded, Severity::Error), [Some(*code)], "{children}");
        assert!(loaded.settings.commands.is_empty(), "{children}");
    }
}

#[test]
fn other_sections_refuse_what_they_do_not_know() {
    let cases: &[(Option<u16>, &str)] = &[
        (Some(1230), "<global><white-list>10.0.0.1</white-list></global>"),
        (Some(1235), "<global><logall>true</logall></global>"),
        (Some(1237), "<global><white_list>10.0.0.999</white_list></global>"),
        (Some(1237), "<global><white_list>10.0.0.1/33</white_list></global>"),
        (Some(1237), "<global><white_list>2001:db8::/129</white_list></global>"),
        (Some(1235), "<alerts><log_alert_level>17</log_alert_level></alerts>"),
        (Some(1230), "<alerts><level>3</level></alerts>"),
        (Some(1230), "<ruleset><rules_dir>x</rules_dir></ruleset>"),
        (Some(1235), "<ruleset><rule_dir pattern=\"(\">x</rule_dir></ruleset>"),
        (
            Some(1230),
            "<localfile><log_format>syslog</log_format><location>/x</location><path>y</path></localfile>",
        ),
        (Some(1235), "<localfile><log_format>sylog</log_format><location>/x</location></localfile>"),
        (Some(1235), "<localfile><log_format>multi-line:0</log_format><location>/x</location></localfile>"),
        (
            Some(1235),
            "<localfile><log_format>syslog</log_format><location>/x</location><ignore>(</ignore></localfile>",
        ),
        (None, "<localfile><log_format>syslog</log_format></localfile>"),
        (None, "<localfile><location>/x</location></localfile>"),
        (None, "<localfile><log_format>command</log_format></localfile>"),
        (Some(1230), "<active_response><level>7</level></active_response>"),
        (None, "<remote><port>1514</port></remote>"),
    ];
    for (code, body) in cases {
        let loaded = manager(body);
        assert_eq!(codes(&loaded, Severity::Error), [*code], "{body}\n{}", shown(&loaded.diagnostics));
    }
    let other_root = parse(&Source::new("f", &b"<wazuh_config></wazuh_config>"[..]), Role::Manager);
    assert_eq!(codes(&other_root, Severity::Error), [Some(1230)]);
    let broken = parse(&Source::new("f", &b"<ossec_config>"[..]), Role::Manager);
    assert_eq!(codes(&broken, Severity::Error), [Some(1226)]);
}

#[test]
fn several_errors_are_reported_at_once() {
    let loaded = response("<location>company</location><level>99</level><command>nope</command><x/>");
    let mut found: Vec<u16> = codes(&loaded, Severity::Error).into_iter().flatten().collect();
    found.sort_unstable();
    assert_eq!(found, [1230, 1235, 1302, 1303]);
}

#[test]
fn an_undefined_command_is_shown_with_a_caret_and_a_way_out() {
    let text = "<ossec_config>\n  <active-response>\n    <command> drop </command>\n    <location>local</location>\n    \
                <level>7</level>\n  </active-response>\n  <command>\n    <name>drop</name>\n    \
                <executable>drop</executable>\n  </command>\n</ossec_config>\n";
    let loaded = parse(&Source::new("etc/ossec.conf", text.as_bytes()), Role::Manager);
    let lines = [
        "error[1303]: command `drop` is not defined yet",
        " --> etc/ossec.conf:3:15",
        "3 |     <command> drop </command>",
        "  |               ^^^^",
        "  = help: move the <command> above this block",
    ];
    assert_eq!(shown(&loaded.diagnostics), lines.join("\n"));
}

#[test]
fn blanks_around_values_do_no_harm() {
    let loaded = response(
        "\n<command> host-deny </command><location> Local , SERVER </location><level> 7 </level>\
         <timeout>\n600\n</timeout><rules_id> 5712 , ,5720</rules_id><disabled> no </disabled>",
    );
    assert_eq!(shown(&loaded.diagnostics), "");
    let response = &loaded.settings.responses[0];
    assert_eq!(response.name, "host-deny600");
    assert_eq!(response.location, Locations { server: true, local: true, ..Locations::default() });
    assert_eq!((response.level, response.timeout_secs), (Some(7), 600));
    assert_eq!(response.rules_id, [RuleId(5712), RuleId(5720)]);
}

#[test]
fn locations_take_the_four_words_and_the_old_aliases() {
    let cases = [
        ("AS", Locations { server: true, ..Locations::default() }),
        ("analysisd", Locations { server: true, ..Locations::default() }),
        ("analysis-server", Locations { server: true, ..Locations::default() }),
        ("any", Locations { all: true, ..Locations::default() }),
        ("ALL", Locations { all: true, ..Locations::default() }),
    ];
    for (text, wanted) in cases {
        let loaded =
            response(&format!("<command>host-deny</command><location>{text}</location><level>7</level>"));
        assert_eq!(loaded.settings.responses[0].location, wanted, "{text}");
    }
}

#[test]
fn both_examples_of_the_guide_get_their_names() {
    let loaded = manager(&format!(
        "{HOST_DENY}<active-response><command>host-deny</command><location>local</location><level>7</level>\
         <timeout>600</timeout></active-response></ossec_config>\n<ossec_config><active-response>\
         <disabled>no</disabled><command>host-deny</command><location>defined-agent</location>\
         <agent_id>001</agent_id><level>10</level><timeout>180</timeout></active-response>"
    ));
    assert_eq!(shown(&loaded.diagnostics), "");
    let names: Vec<_> = loaded.settings.responses.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["host-deny600", "host-deny180"]);
    assert_eq!(loaded.settings.responses[1].agent_id, Some(AgentId(1)));
}

#[test]
fn a_timeout_that_the_command_does_not_allow_becomes_zero() {
    let loaded =
        response("<command>note</command><location>server</location><level>7</level><timeout>60</timeout>");
    assert_eq!(codes(&loaded, Severity::Info), [Some(1305)]);
    assert_eq!(loaded.settings.responses[0].name, "note0");
}

#[test]
fn a_response_for_agent_zero_is_skipped_with_a_warning() {
    for id in ["0", "000", "web"] {
        let loaded = response(&format!(
            "<command>host-deny</command><location>defined-agent</location><agent_id>{id}</agent_id><level>7</level>"
        ));
        assert_eq!(codes(&loaded, Severity::Warning), [Some(1306)], "{id}");
        assert!(!loaded.has_errors() && loaded.settings.responses.is_empty());
    }
}

#[test]
fn a_response_without_a_condition_is_kept_with_a_warning() {
    for level in ["", "<level>0</level>"] {
        let loaded = response(&format!("<command>host-deny</command><location>all</location>{level}"));
        assert_eq!(codes(&loaded, Severity::Warning), [None]);
        assert!(loaded.diagnostics[0].message.contains("can never run"));
        assert_eq!(loaded.settings.responses.len(), 1);
    }
}

#[test]
fn a_disabled_block_drops_only_itself() {
    let on = "<active-response><command>host-deny</command><location>local</location><level>7</level></active-response>";
    let off = "<active-response><disabled>yes</disabled><command>gone</command><location>local</location></active-response>";
    let loaded = manager(&format!("{HOST_DENY}{off}{on}{off}"));
    assert_eq!(shown(&loaded.diagnostics), "");
    assert_eq!(loaded.settings.responses.len(), 1);
    assert!(!loaded.settings.responder.disabled);
}

#[test]
fn only_a_block_without_command_switches_the_managers_responder() {
    for role in [Role::Manager, Role::Standalone] {
        let switched = |value: &str| {
            let body = format!("<active-response><disabled>{value}</disabled></active-response>");
            let loaded = read(&body, role);
            assert_eq!(shown(&loaded.diagnostics), "");
            loaded.settings.responder.disabled
        };
        assert!(switched("yes"));
        assert!(!switched("no"));
    }
}

#[test]
fn on_an_agent_the_first_disabled_decides_and_responses_are_not_judged() {
    let loaded = read(
        "<active-response><nonsense/><disabled>yes</disabled></active-response>\
         <active-response><disabled>no</disabled><repeated_offenders>1,5</repeated_offenders></active-response>",
        Role::Agent,
    );
    assert_eq!(shown(&loaded.diagnostics), "");
    assert!(loaded.settings.responder.disabled);
    assert_eq!(loaded.settings.responder.repeated_offenders, [1, 5]);
}

#[test]
fn empty_blocks_are_warnings() {
    let loaded = manager("<active-response/><command></command><active-response>\n</active-response>");
    assert_eq!(codes(&loaded, Severity::Warning).len(), 3);
    assert!(!loaded.has_errors());
}

#[test]
fn escalation_keeps_the_first_list_and_five_steps() {
    let block = |list: &str| {
        format!("<active-response><repeated_offenders>{list}</repeated_offenders></active-response>")
    };
    let steps = |list: &str| {
        let loaded = manager(&block(list));
        (loaded.settings.responder.repeated_offenders.clone(), codes(&loaded, Severity::Warning).len())
    };
    assert_eq!(steps("30, 60,120"), (vec![30, 60, 120], 0));
    assert_eq!(steps("1,2,3,4,5,6"), (vec![1, 2, 3, 4, 5], 1));
    assert_eq!(steps("0"), (vec![], 0));
    assert_eq!(steps("1,0,5"), (vec![1], 1));
    let twice = manager(&format!("{}{}", block("1"), block("2")));
    assert_eq!(twice.settings.responder.repeated_offenders, [1]);
    assert_eq!(codes(&twice, Severity::Warning).len(), 1);
}

#[test]
fn two_commands_that_share_a_response_name_are_refused() {
    let command = |name: &str, exe: &str| {
        format!(
            "<command><name>{name}</name><executable>{exe}</executable><timeout_allowed>yes</timeout_allowed></command>"
        )
    };
    let used = |name: &str, timeout: u32| {
        format!(
            "<active-response><command>{name}</command><location>local</location><level>7</level><timeout>{timeout}</timeout></active-response>"
        )
    };
    let pair = format!("{}{}", used("drop", 10), used("drop1", 0));
    let different = manager(&format!("{}{}{pair}", command("drop", "a"), command("drop1", "b")));
    assert_eq!(codes(&different, Severity::Error), [None]);
    let equal = manager(&format!("{}{}{pair}", command("drop", "a"), command("drop1", "a")));
    assert_eq!(shown(&equal.diagnostics), "");
    let reserved = manager(&format!("{}{}", command("restart-wazuh", "evil"), used("restart-wazuh", 0)));
    assert_eq!(codes(&reserved, Severity::Error), [None]);
}

#[test]
fn the_first_of_two_commands_with_one_name_is_used() {
    let loaded = manager(&format!(
        "{HOST_DENY}<command><name>host-deny</name><executable>other</executable></command>\
         <active-response><command>host-deny</command><location>local</location><level>7</level></active-response>"
    ));
    assert_eq!(codes(&loaded, Severity::Warning), [None]);
    assert_eq!(loaded.settings.responses[0].executable, "host-deny");
}

#[test]
fn extra_arguments_are_split_at_blanks() {
    let loaded = manager(
        "<command><name>x</name><executable>x</executable><extra_args> -a  \"b c\" </extra_args></command>",
    );
    assert_eq!(loaded.settings.commands[0].extra_args, ["-a", "\"b", "c\""]);
}

#[test]
fn the_allow_list_knows_both_families_and_refuses_to_guess() {
    let loaded = manager(
        "<global><white_list>10.0.0.0/255.0.0.0</white_list><white_list>2001:db8::/32</white_list>\
         <white_list>::1</white_list><white_list>^localhost$</white_list></global>",
    );
    assert_eq!(shown(&loaded.diagnostics), "");
    let list = &loaded.settings.global.white_list;
    let covers = |text: &str| {
        let address = text.parse().unwrap();
        list.iter().any(|e| matches!(e, AllowEntry::Network(n) if n.contains(address)))
    };
    assert!(covers("10.9.8.7") && covers("2001:db8:1::1") && covers("::1"));
    assert!(!covers("2001:db9::1") && !covers("fe80::1"));
    assert!(matches!(&list[3], AllowEntry::Host { text, .. } if text == "^localhost$"));
    for doubtful in ["!10.0.0.1", "any", "^10.0.0."] {
        let loaded = manager(&format!("<global><white_list>{doubtful}</white_list></global>"));
        assert_eq!(codes(&loaded, Severity::Warning), [None], "{doubtful}");
        let networks = loaded.settings.global.white_list.iter();
        assert_eq!(networks.filter(|e| matches!(e, AllowEntry::Network(_))).count(), 0, "{doubtful}");
    }
}

#[test]
fn sections_without_effect_are_named_once() {
    let loaded = manager("<wodle name=\"a\"><x/></wodle><syscheck/><wodle/><global/><later_section/>");
    assert_eq!(codes(&loaded, Severity::Info), [None]);
    assert_eq!(loaded.diagnostics.len(), 1);
    assert_eq!(loaded.settings.unused_sections, ["wodle", "syscheck", "later_section"]);
}

#[test]
fn a_source_of_lines_keeps_all_it_was_given() {
    let loaded = manager(
        "<localfile><LOG_FORMAT>journald</LOG_FORMAT><filter field=\"_SYSTEMD_UNIT\" ignore_if_missing=\"yes\">^ssh</filter>\
         <only-future-events max-size=\"5MB\">no</only-future-events><age>1d</age><frequency>hourly</frequency>\
         <ignore type=\"osmatch\">noise</ignore></localfile>\
         <localfile><log_format>multi-line-regex</log_format><location>/x</location>\
         <multiline_regex match=\"end\" replace=\"wspace\" timeout=\"9\">;$</multiline_regex></localfile>",
    );
    assert_eq!(shown(&loaded.diagnostics), "");
    let [journal, lines] = &loaded.settings.localfiles[..] else { panic!("two blocks") };
    assert_eq!(journal.location.as_deref(), Some("journald"));
    assert!(!journal.only_future_events && journal.filters[0].ignore_if_missing);
    assert!(
        journal.filters[0].expression.is_match(b"sshd.service") && journal.ignore[0].is_match(b"some noise")
    );
    assert_eq!((journal.max_size, journal.age), (5 << 20, Some(Duration::from_secs(86_400))));
    assert_eq!(journal.frequency, Duration::from_secs(3600));
    let multiline = lines.multiline.as_ref().unwrap();
    assert_eq!((multiline.edge, multiline.replace), (MultilineEdge::End, Some(" ")));
    assert_eq!(multiline.timeout, Duration::from_secs(9));
}

#[test]
fn a_pushed_configuration_adds_files_but_no_commands() {
    let text = "<agent_config><localfile><log_format>syslog</log_format><location>/x</location></localfile>\
                <localfile><log_format>command</log_format><command>id</command></localfile>\
                <active-response><disabled>yes</disabled></active-response></agent_config>\
                <agent_config name=\"web\"><localfile><log_format>x</log_format></localfile></agent_config>";
    let loaded = parse(&Source::new("agent.conf", text.as_bytes()), Role::Agent);
    assert!(!loaded.has_errors() && !loaded.settings.responder.disabled);
    assert_eq!(loaded.settings.localfiles.len(), 1);
    assert_eq!(codes(&loaded, Severity::Warning).len(), 3);
}

#[test]
fn our_own_configurations_load_without_a_word() {
    for role in [Role::Manager, Role::Standalone, Role::Agent] {
        let demo = demo_conf(Path::new("/tmp/watched.log"));
        for text in [DEFAULT_OSSEC_CONF, &demo] {
            let loaded = parse(&Source::new("etc/ossec.conf", text.as_bytes()), role);
            assert_eq!(shown(&loaded.diagnostics), "");
        }
    }
    let default = parse(&Source::new("f", DEFAULT_OSSEC_CONF.as_bytes()), Role::Manager).settings;
    let commands: Vec<_> = default.commands.iter().map(|c| (c.name.as_str(), c.timeout_allowed)).collect();
    let wanted = [
        ("disable-account", true),
        ("restart-wazuh", false),
        ("firewall-drop", true),
        ("host-deny", true),
        ("route-null", true),
        ("win_route-null", true),
        ("netsh", true),
    ];
    assert_eq!(commands, wanted);
    assert!(default.responses.is_empty());
    assert_eq!((default.alerts.log_alert_level, default.alerts.email_alert_level), (3, 12));
    let demo = demo_conf(Path::new("/tmp/watched.log"));
    let demo = parse(&Source::new("f", demo.as_bytes()), Role::Standalone).settings;
    assert_eq!(demo.responses[0].name, "firewall-drop8");
    let files: Vec<_> = demo.localfiles.iter().filter_map(|l| l.location.as_deref()).collect();
    assert_eq!(files, ["logs/active-responses.log", "/tmp/watched.log"]);
}

fn shared(below: &str) -> Option<PathBuf> {
    let fallback = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let given = std::env::var_os("TLD_SHARED");
    let dir = given.clone().map_or(fallback, PathBuf::from).join(below);
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(given.is_none() || std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no {}", dir.display());
    println!("skipped: no {}", dir.display());
    None
}

#[test]
fn the_reference_configurations_load_without_errors() {
    let Some(dir) = shared("conformance/configs") else { return };
    let cases = [
        ("manager-default.conf", Role::Manager),
        ("manager-default.conf", Role::Standalone),
        ("local-default.conf", Role::Manager),
        ("local-default.conf", Role::Standalone),
        ("agent-default.conf", Role::Agent),
        ("agent-default.conf", Role::Manager),
        ("agent.conf", Role::Agent),
    ];
    for (name, role) in cases {
        let loaded = load(&dir, Some(&dir.join(name)), role).unwrap();
        assert!(!loaded.has_errors(), "{name}: {}", shown(&loaded.diagnostics));
    }
    let mut options = InternalOptions::default();
    let mut diagnostics = Vec::new();
    let text = std::fs::read(dir.join("internal_options.conf")).unwrap();
    options.apply(&Source::new("internal_options.conf", text), &mut diagnostics);
    assert_eq!(shown(&diagnostics), "");
    assert_eq!(options.value("logcollector.max_lines"), Some(10_000));
}

#[test]
fn the_reference_ruleset_is_found_in_its_order() {
    let Some(home) = shared("conformance/home") else { return };
    let loaded = load(&home, None, Role::Manager).unwrap();
    assert!(!loaded.has_errors());
    let (texts, diagnostics) = read_ruleset(&home, &loaded.settings.ruleset, &[]);
    assert_eq!(shown(&diagnostics), "");
    let names = |sources: &[Source]| sources.iter().map(|s| s.name.to_string()).collect::<Vec<_>>();
    let rules = names(&texts.rules);
    assert!(rules.len() > 100 && texts.decoders.len() > 100);
    assert!(!rules.iter().any(|r| r.ends_with("0215-policy_rules.xml")));
    let base = |name: &String| name.rsplit('/').next().unwrap().to_owned();
    assert!(rules.iter().map(base).is_sorted());
    assert!(rules.contains(&"etc/rules/local_rules.xml".to_owned()));
    assert_eq!(names(&texts.lists)[0], "etc/lists/audit-keys");
    assert_eq!(texts.lists.len(), 6);
}

#[test]
fn directories_patterns_includes_and_excludes_choose_the_files() {
    let home = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap();
    };
    for name in
        ["ruleset/rules/b.xml", "ruleset/rules/a.xml", "etc/rules/aa.xml", "etc/rules/x.txt", "other/b.xml"]
    {
        put(name);
    }
    put("ruleset/rules/c.xml/nested.xml");
    let rules = |body: &str| {
        let loaded = manager(&format!("<ruleset>{body}</ruleset>"));
        assert!(!loaded.has_errors(), "{}", shown(&loaded.diagnostics));
        let (texts, diagnostics) = read_ruleset(home.path(), &loaded.settings.ruleset, &[]);
        let names: Vec<String> = texts.rules.iter().map(|s| s.name.to_string()).collect();
        (names, diagnostics.iter().filter(|d| &*d.file == "no/rules").count())
    };
    let both = "<rule_dir>ruleset/rules</rule_dir><rule_dir>etc/rules/</rule_dir>";
    assert_eq!(rules("").0, ["ruleset/rules/a.xml", "ruleset/rules/b.xml"]);
    assert_eq!(rules(both).0, ["ruleset/rules/a.xml", "etc/rules/aa.xml", "ruleset/rules/b.xml"]);
    assert_eq!(rules(&format!("{both}<rule_exclude>b.xml</rule_exclude>")).0.len(), 2);
    assert_eq!(rules(&format!("{both}<rule_exclude>etc/rules/aa.xml</rule_exclude>")).0.len(), 2);
    assert_eq!(rules("<rule_dir pattern=\".txt$\">etc/rules</rule_dir>").0, ["etc/rules/x.txt"]);
    assert_eq!(
        rules(&format!("{both}<rule_include>other/b.xml</rule_include>")).0,
        ["ruleset/rules/a.xml", "etc/rules/aa.xml", "other/b.xml"]
    );
    assert_eq!(rules("<rule_dir>no/rules</rule_dir>"), (vec![], 1));
}

#[test]
fn a_missing_configuration_is_an_error_with_its_path() {
    let home = tempfile::tempdir().unwrap();
    let error = load(home.path(), None, Role::Manager).unwrap_err();
    assert!(error.to_string().contains("etc/ossec.conf"));
    std::fs::create_dir_all(home.path().join("etc/ossec.conf")).unwrap();
    assert!(load(home.path(), None, Role::Manager).is_err());
}

#[test]
fn local_options_override_and_bad_values_are_errors() {
    let mut options = InternalOptions::default();
    let mut diagnostics = Vec::new();
    let text = "# x\nlogcollector.max_lines=5\nlogcollector.loop_timeout=0\nexecd.max_restart_lok=1\nremoted.x=9\nword\n";
    options.apply(&Source::new("f", text.as_bytes()), &mut diagnostics);
    assert_eq!(options.value("logcollector.max_lines"), Some(5));
    assert_eq!(options.value("logcollector.loop_timeout"), Some(2));
    let lines: Vec<_> = diagnostics.iter().map(|d| (d.severity, d.line)).collect();
    assert_eq!(lines, [(Severity::Error, 3), (Severity::Warning, 4), (Severity::Error, 6)]);
}

#[cfg(unix)]
mod executables {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::executable::{ResolveError, resolve};

    fn put(dir: &Path, name: &str, mode: u32) {
        let path = dir.join(name);
        std::fs::File::create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_name_finds_its_file_with_or_without_extension() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "one.sh", "two.py", "three.sh", "three.py", "five.tar.gz"] {
            put(dir.path(), name, 0o750);
        }
        put(dir.path(), "four.txt", 0o640);
        for leftover in ["two.bak", "two.orig", "two.sh~", "two.rpmsave", "two.dpkg-old", "two~"] {
            put(dir.path(), leftover, 0o750);
        }
        let found = |name: &str| resolve(dir.path(), name).map(|p| p.file_name().unwrap().to_owned());
        assert_eq!(found("one").unwrap(), "one");
        assert_eq!(found("two").unwrap(), "two.py");
        assert_eq!(found("three.sh").unwrap(), "three.sh");
        assert_eq!(found("five.tar").unwrap(), "five.tar.gz");
        assert!(matches!(found("five"), Err(ResolveError::NotFound { .. })));
        assert!(matches!(found("four"), Err(ResolveError::NotFound { .. })));
        let several = found("three").unwrap_err();
        assert_eq!(several.to_string(), "`three` may be `three.py` or `three.sh`; give the extension");
        for bad in ["", ".", "..", "../one", "a/b", "a\\b", "a\nb", "a\0b"] {
            assert!(matches!(found(bad), Err(ResolveError::Name { .. })), "{bad:?}");
        }
    }

    #[test]
    fn missing_executables_of_commands_are_warned_about() {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("active-response/bin");
        std::fs::create_dir_all(&bin).unwrap();
        put(&bin, "host-deny.sh", 0o750);
        let on = |command: &str, place: &str| {
            format!(
                "<active-response><command>{command}</command><location>{place}</location><level>7</level></active-response>"
            )
        };
        let body = format!(
            "{HOST_DENY}{NO_TIMEOUT}{}{}{}",
            on("host-deny", "local"),
            on("note", "all"),
            on("note", "server")
        );
        let warnings = check_executables(home.path(), &manager(&body).settings, &["note-of-ours"]);
        assert_eq!(warnings.len(), 1);
        assert_eq!((warnings[0].severity, warnings[0].line), (Severity::Warning, 1));
        assert!(warnings[0].message.starts_with("command `note`: no executable `note.sh`"));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(
        parts in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(vec![
                    "<active-response>", "</active-response>", "<command>", "</command>", "<location>local",
                    "</location>", "<level>7</level>", "<timeout>", "</timeout>", "host-deny", "<global>",
                    "</global>", "<white_list>", "</white_list>", "10.0.0.1/", "::", "<localfile>", "</localfile>",
                    "<name>", "</name>", "<executable>", "</executable>", "<repeated_offenders>",
                    "</repeated_offenders>", ",", "0", "é", "<x/>", " ", "\n",
                ]).prop_map(str::to_owned),
                "[ -~é]{0,4}",
            ],
            0..40,
        )
    ) {
        for role in [Role::Manager, Role::Agent, Role::Standalone] {
            for diagnostic in read(&parts.concat(), role).diagnostics {
                prop_assert!(!diagnostic.render(false).is_empty());
            }
        }
    }
}

#[test]
fn the_contract_is_chosen_per_command_and_a_response_may_choose_another() {
    let block = |command: &str, response: &str| {
        manager(&format!(
            "<command><name>c</name><executable>c.sh</executable>{command}</command>\
             <active-response><command>c</command><location>local</location><level>7</level>{response}</active-response>"
        ))
    };
    let of = |command: &str, response: &str| block(command, response).settings.responses[0].contract;
    let tag = |word: &str| format!("<contract>{word}</contract>");
    assert_eq!(of("", ""), Contract::Four);
    assert_eq!(of(&tag("argv"), ""), Contract::Argv);
    assert_eq!(of(&tag(" 5 "), ""), Contract::Five);
    assert_eq!(of(&tag("argv"), &tag("4")), Contract::Four);
    for bad in ["", "3", "ARGV", "4 5"] {
        assert!(block(&tag(bad), "").has_errors() && block("", &tag(bad)).has_errors(), "{bad}");
    }
}

#[test]
fn an_endpoint_has_options_of_its_own_for_responses_of_a_foreign_manager() {
    let loaded = read(
        "<active-response><disabled>no</disabled></active-response>\
         <active-response><command>firewall-drop</command><ports>22,80</ports><contract>argv</contract></active-response>\
         <active-response><command>old.sh</command><cut_connections>yes</cut_connections>\
         <repeated_offenders>5,10</repeated_offenders></active-response>",
        Role::Agent,
    );
    assert_eq!(shown(&loaded.diagnostics), "");
    let responder = loaded.settings.responder;
    let own = responder.own("firewall-drop600", 600, "firewall-drop").unwrap();
    assert_eq!((own.contract, own.ports.as_slice()), (Contract::Argv, &[22, 80][..]));
    assert_eq!(responder.own("x60", 60, "old.sh").unwrap().repeated_offenders, [5, 10]);
    assert_eq!(responder.own("firewall-drop6001", 60, "other"), None);
}

#[test]
fn options_that_4_x_agents_never_learn_of_are_told_where_there_are_agents() {
    let home = tempfile::tempdir().unwrap();
    let responses = |location: &str, option: &str| {
        manager(&format!(
            "<command><name>c</name><executable>c.sh</executable></command><active-response><command>c</command>\
             <location>{location}</location><level>7</level>{option}</active-response>"
        ))
        .settings
    };
    let warnings = |location: &str, option: &str| {
        let found = check_extensions(home.path(), &responses(location, option));
        found.first().map(|one| one.message.clone())
    };
    assert_eq!(warnings("local", "<ports>22</ports>"), None, "no agents");
    std::fs::create_dir(home.path().join("etc")).unwrap();
    let mut keys = std::fs::File::create(home.path().join("etc/client.keys")).unwrap();
    std::io::Write::write_all(&mut keys, b"001 web01 any 00ff\n").unwrap();
    assert_eq!(
        warnings("local", "<ports>22</ports><contract>argv</contract>").unwrap(),
        "response `c0`: 4.x agents do not know `contract`, `ports`"
    );
    assert_eq!(warnings("server", "<ports>22</ports>"), None);
    assert_eq!(warnings("all", ""), None);
}

#[test]
fn an_agent_takes_the_pushed_blocks_that_mean_it_and_commands_only_if_allowed() {
    let own = Source::new("etc/ossec.conf", b"<ossec_config></ossec_config>".to_vec());
    let file = |name: &str| {
        format!("<localfile><log_format>syslog</log_format><location>/{name}</location></localfile>")
    };
    let blocks: String = [
        ("", "all"),
        (" name=\"^web|^db\"", "name"),
        (" name=\"^mail\"", "other-name"),
        (" os=\"Linux\" profile=\"debian12\"", "os-and-profile"),
        (" os=\"Linux\" profile=\"centos\"", "other-profile"),
    ]
    .map(|(attributes, name)| format!("<agent_config{attributes}>{}</agent_config>", file(name)))
    .concat();
    let command = "<agent_config><localfile><log_format>command</log_format><command>df</command></localfile></agent_config>";
    let pushed = Source::new("etc/shared/agent.conf", format!("{blocks}{command}").into_bytes());
    let identity = Identity {
        name: "web-01".into(),
        system: "Linux |web-01 |6.1 |x |x86_64 [Debian|debian: 12]".into(),
        profile: "debian, debian12".into(),
    };
    let read = |commands| {
        let loaded = parse_agent(&[own.clone(), pushed.clone()], &identity, commands);
        assert!(!loaded.has_errors(), "{}", shown(&loaded.diagnostics));
        loaded.settings.localfiles
    };
    let places: Vec<_> = read(false).into_iter().filter_map(|one| one.location).collect();
    assert_eq!(places, ["/all", "/name", "/os-and-profile"]);
    assert_eq!(read(true).last().and_then(|one| one.command.clone()).as_deref(), Some("df"));
}
