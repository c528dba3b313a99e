//! Forms of alerts beyond the usual one: the operator's own line, compliance that comes from the event, and alerts of the
//! product itself.

use std::sync::Arc;

use serde_json::{Value, json};
use tld_model::{Alert, Event, RuleId, Timestamp};
use tld_rules::{Analyzer, Options, OwnRule, PlainForm, Ruleset, Settings};
use tld_xml::Source;

const DECODERS: &str = r#"
<decoder name="sca"><program_name>^sca$</program_name></decoder>
<decoder name="sca-fields"><parent>sca</parent><plugin_decoder>JSON_Decoder</plugin_decoder></decoder>
<decoder name="probe"><program_name>^probe$</program_name></decoder>
<decoder name="probe-fields"><parent>probe</parent><regex>from (\S+)</regex><order>srcip</order></decoder>"#;

const RULES: &str = r#"<group name="base,pci_dss_1.1,">
  <rule id="1" level="0" noalert="1"><category>syslog</category><description>root</description></rule>
  <rule id="100" level="3"><decoded_as>probe</decoded_as><description>seen</description></rule>
  <rule id="101" level="3"><decoded_as>sca</decoded_as><description>check</description></rule>
  <rule id="102" level="3"><program_name>^rootcheck$</program_name><group>rootcheck,</group>
    <description>audit</description></rule>
</group>"#;

fn analyzer(form: Option<&str>) -> Analyzer {
    let decoders = [Source::new("decoders", DECODERS.as_bytes())];
    let rules = [Source::new("rules", RULES.as_bytes())];
    let loaded = Ruleset::load(&decoders, &rules, &[], &Options::default());
    let plain_form = form.map(|form| Arc::new(PlainForm::parse(form).expect("a form")));
    Analyzer::new(loaded.ruleset.expect("rules"), Settings { plain_form, ..Settings::default() })
}

fn alert(analyzer: &mut Analyzer, text: &str) -> Alert {
    let event = Event::local("/var/log/x", text, Timestamp::from_secs(1_772_446_530));
    analyzer.analyze(&event).alert.expect("an alert")
}

fn json_of(alert: &Alert) -> Value {
    let mut line = Vec::new();
    alert.json.write("1.2", &mut line);
    serde_json::from_slice(&line).expect("JSON")
}

#[test]
fn an_alert_in_the_operators_form_is_one_line_around_its_offset() {
    let form = "$TIMESTAMP.$FTELL: $RULEALERT<$HOSTNAME> $LOCATION $RULEID/$RULELEVEL $SRCIP $DSTUSER [$FULLLOG] $RULECOMMENT $RULEGROUP";
    let mut analyzer = analyzer(Some(form));
    let alert = alert(&mut analyzer, "Jan  1 00:00:00 host probe: from 192.0.2.1 x\nforged line");
    let mut line = Vec::new();
    alert.plain.write("77", &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "1772446530.77: <host> /var/log/x 100/3 192.0.2.1 None [Jan  1 00:00:00 host probe: from 192.0.2.1 x\\nforged line] \
         seen base,pci_dss_1.1,\n"
    );
}

#[test]
fn an_sca_check_and_a_rootcheck_text_add_compliance_but_replace_nothing() {
    let mut analyzer = analyzer(None);
    let check = r#"Jan  1 00:00:00 host sca: {"sca":{"check":{"compliance":{"hipaa":"164.312.b, 164.1","pci_dss":"9","id":"7"}}}}"#;
    let rule = &json_of(&alert(&mut analyzer, check))["rule"];
    assert_eq!(rule["hipaa"], json!(["164.312.b", "164.1"]));
    assert_eq!((&rule["pci_dss"], &rule["id"]), (&json!(["1.1"]), &json!("101")));
    let audit = "Jan  1 00:00:00 host rootcheck: Audit {CIS: 4.13 Debian} {Level: 15} {TSC: a,b}";
    let rule = &json_of(&alert(&mut analyzer, audit))["rule"];
    assert_eq!((&rule["cis"], &rule["tsc"]), (&json!(["4.13 Debian"]), &json!(["a", "b"])));
    assert_eq!((&rule["level"], &rule["id"]), (&json!(3), &json!("102")));
}

#[test]
fn an_alert_of_the_product_itself_has_every_member_and_binds_no_response() {
    let analyzer = analyzer(None);
    let own = OwnRule { id: RuleId(11), level: 4, groups: "stats,", description: "much", fired: 2 };
    let event = Event::local("here", "so many", Timestamp::from_secs(1_772_446_530));
    let alert = analyzer.preparer().own_alert(&own, &event);
    assert!(alert.no_response && alert.logged);
    let object = json_of(&alert);
    assert_eq!(
        object["rule"],
        json!({"level": 4, "description": "much", "id": "11", "firedtimes": 2, "mail": false, "groups": ["stats"]})
    );
    assert_eq!((&object["full_log"], &object["location"]), (&json!("so many"), &json!("here")));
    assert_eq!(object["agent"]["id"], "000");
}
