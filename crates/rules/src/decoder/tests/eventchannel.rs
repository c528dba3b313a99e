//! Windows events as our agents and those of the contract send them.

use super::{decode_event, event, loaded};

fn windows(xml: &str, message: &str) -> super::Outcome {
    let mut text = String::from("{\"Message\":\"");
    text.push_str(message);
    text.push_str("\",\"Event\":\"");
    text.push_str(&xml.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
    text.push_str("\"}");
    decode_event(&loaded(""), &event(b'f', &text))
}

fn system(inner: &str) -> super::Outcome {
    windows(&format!("<Event xmlns='http://x/'><System>{inner}</System></Event>"), "m")
}

fn data(inner: &str) -> super::Outcome {
    windows(&format!("<Event><System/><EventData>{inner}</EventData></Event>"), "m")
}

/// Fields below `win.system`, without the message that every case has.
fn listed(outcome: &super::Outcome, prefix: &str) -> String {
    let fields = outcome.fields.iter().filter_map(|(key, value)| {
        let key = key.strip_prefix(prefix).filter(|key| *key != "message")?;
        Some(format!("{key}={value}"))
    });
    fields.collect::<Vec<_>>().join(" ")
}

#[test]
fn system_members_are_renamed() {
    let cases = [
        ("<EventID>4625</EventID>", "eventID=4625"),
        ("<Version>0</Version><Task>12</Task>", "version=0 task=12"),
        (
            "<Provider Name='P' Guid='{g}' EventSourceName='s'/>",
            "providerName=P providerGuid={g} eventSourceName=s",
        ),
        ("<Provider Name='P'/>", "providerName=P"),
        ("<TimeCreated SystemTime='2024-01-01T00:00:00Z'/>", "systemTime=2024-01-01T00:00:00Z"),
        ("<Execution ProcessID='4' ThreadID='8'/>", "processID=4 threadID=8"),
        ("<Correlation ActivityID='x'/>", ""),
        ("<Channel>Security</Channel><Computer>h</Computer>", "channel=Security computer=h"),
        ("<Security/>", ""),
        ("<EventID Qualifiers='0'>7 </EventID>", "eventID=7"),
    ];
    for (xml, expected) in cases {
        assert_eq!(listed(&system(xml), "win.system."), expected, "{xml}");
    }
}

#[test]
fn severity_needs_level_and_keywords() {
    let cases = [
        ("1", "0x0", "CRITICAL"),
        ("2", "0x0", "ERROR"),
        ("3", "0x0", "WARNING"),
        ("4", "0x80000000000000", "INFORMATION"),
        ("5", "0x0", "VERBOSE"),
        ("0", "0x8010000000000000", "AUDIT_FAILURE"),
        ("0", "0x8020000000000000", "AUDIT_SUCCESS"),
        ("0", "0x0", "UNKNOWN"),
        ("9", "0x0", "UNKNOWN"),
        ("0", "odd", "UNKNOWN"),
    ];
    for (level, keywords, expected) in cases {
        let outcome = system(&format!("<Level>{level}</Level><Keywords>{keywords}</Keywords>"));
        assert_eq!(outcome.field("win.system.severityValue"), Some(expected), "{level} {keywords}");
    }
    assert_eq!(system("<Level>1</Level>").field("win.system.severityValue"), None);
}

#[test]
fn event_data_is_named_joined_and_cleaned() {
    let cases = [
        ("<Data Name='TargetUserName'>bob</Data>", "targetUserName=bob"),
        ("<Data Name='A'>-</Data><Data Name='B'></Data><Data Name='C'>(NULL)</Data>", ""),
        ("<Data Name='A'>x  </Data>", "a=x"),
        ("<Data>one</Data><Data>two</Data>", "data=one, two"),
        ("<Data>one</Data><Data Name='A'>x</Data>", "a=x data=one"),
        ("<Binary>00FF</Binary>", "binary=00FF"),
        (r"<Data Name='Image'>C:\Windows\x.exe</Data>", r"image=C:\\Windows\\x.exe"),
        ("<Data Name='A'>a &amp; b</Data>", "a=a &amp; b"),
        ("<Data Name='CategoryId'>%%8274</Data>", "categoryId=%%8274 category=Object Access"),
        ("<Data Name='CategoryId'>%%8280</Data>", "categoryId=%%8280 category=Account Logon"),
        ("<Data Name='CategoryId'>%%8281</Data>", "categoryId=%%8281"),
        ("<Data Name='SubcategoryId'>%%12544</Data>", "subcategoryId=%%12544 subcategory=Logon"),
        (
            "<Data Name='SubcategoryId'>%%13824</Data>",
            "subcategoryId=%%13824 subcategory=User Account Management",
        ),
        (
            "<Data Name='AuditPolicyChanges'>%%8448, %%8451</Data>",
            "auditPolicyChangesId=%%8448, %%8451 auditPolicyChanges=Success removed, Failure added",
        ),
        (
            "<Data Name='AuditPolicyChanges'>%%8449, %%8450</Data>",
            "auditPolicyChangesId=%%8449, %%8450 auditPolicyChanges=Success added, Failure removed",
        ),
    ];
    for (xml, expected) in cases {
        assert_eq!(listed(&data(xml), "win.eventdata."), expected, "{xml}");
    }
}

#[test]
fn the_message_is_quoted_and_ends_without_blanks() {
    let outcome =
        windows("<Event><System><EventID>1</EventID></System></Event>", r"An account.\r\n\tName:\tx \r\n");
    assert_eq!(outcome.field("win.system.message"), Some("\"An account.\r\n\tName:\tx\""));
    assert_eq!(outcome.decoder, "windows_eventchannel");
}

#[test]
fn user_data_becomes_an_object_of_its_own() {
    let xml = "<Event><System/><UserData><LogFileCleared><SubjectUserName>bob</SubjectUserName>\
               <Channel>Security</Channel></LogFileCleared></UserData></Event>";
    let outcome = windows(xml, "m");
    assert_eq!(outcome.field("win.logFileCleared.subjectUserName"), Some("bob"));
    assert_eq!(outcome.field("win.logFileCleared.channel"), Some("Security"));
}

#[test]
fn attributes_in_quotation_marks_are_read_too() {
    let outcome = windows(r#"<Event><System><Provider Name="P"/></System></Event>"#, "m");
    assert_eq!(outcome.field("win.system.providerName"), Some("P"));
}

#[test]
fn what_is_no_event_keeps_its_text_and_has_no_fields() {
    for text in ["", "{", "plain", r#"{"Event":5}"#, r#"{"Event":"<Event>"}"#, r#"{"Message":"x"}"#] {
        let outcome = decode_event(&loaded(""), &event(b'f', text));
        assert_eq!(
            (outcome.decoder.as_str(), outcome.listed().as_str()),
            ("windows_eventchannel", ""),
            "{text}"
        );
    }
}

#[test]
fn the_rewritten_text_is_compact_json() {
    use crate::predecode::{HostNames, predecode};
    let event =
        event(b'f', r#"{"Message":"m","Event":"<Event><System><EventID>1</EventID></System></Event>"}"#);
    let hosts = HostNames::new("h");
    let decoders = loaded("");
    let mut decoded = predecode(&event, &hosts);
    decoders.decode(&mut decoded, &mut super::Scratch::new(), None);
    assert_eq!(super::text(&decoded.full_log), r#"{"win":{"system":{"eventID":"1","message":"\"m\""}}}"#);
    assert_eq!(decoded.log, decoded.full_log);
    assert_eq!(decoded.category, crate::Category::Ossec);
}

#[test]
fn other_queues_have_a_name_and_no_more() {
    for (queue, name) in [(b'9', "rootcheck"), (b'p', "sca"), (b'd', "syscollector"), (b'e', "ciscat")] {
        assert_eq!(decode_event(&loaded(""), &event(queue, "text")).decoder, name);
    }
}
