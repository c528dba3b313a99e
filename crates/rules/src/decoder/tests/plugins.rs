//! The plugins other than JSON.

use tld_model::RuleId;

use super::{decode, loaded};
use crate::decoder::{Decoders, Scratch};
use crate::predecode::{HostNames, predecode};
use crate::{Category, StaticField};

fn plugin(name: &str) -> Decoders {
    loaded(&format!(
        r#"<decoder name="x"><prematch type="pcre2">^</prematch><plugin_decoder>{name}</plugin_decoder></decoder>"#
    ))
}

#[test]
fn packet_filter_lines_are_read_as_far_as_they_go() {
    let cases = [
        ("rule 2/0(match): x (a) pass in on em0: 192.0.2.1.4000 > 198.51.100.2.22: udp 5", ""),
        (
            "rule 2/0(match) pass in on em0: 192.0.2.1.4000 > 198.51.100.2.22: udp 5",
            "protocol=UDP action=pass srcip=192.0.2.1 srcport=4000 dstip=198.51.100.2 dstport=22",
        ),
        (
            "rule 2/0(match) block in on em0: 192.0.2.1 > 198.51.100.2: icmp",
            "protocol=ICMP action=block srcip=192.0.2.1 dstip=198.51.100.2",
        ),
        (
            "rule 2/0(match) block in on em0: 192.0.2.1.1 > 198.51.100.2.2: S 1:1(0)",
            "protocol=TCP action=block srcip=192.0.2.1 srcport=1 dstip=198.51.100.2 dstport=2",
        ),
        (
            "rule 2/0(match) block in on em0: 192.0.2.1.1 < 198.51.100.2",
            "action=block srcip=192.0.2.1 srcport=1",
        ),
        (
            "rule 2/0(match) pass in on em0: 192.0.2.1.1 > 198.51.100.2.2:",
            "action=pass srcip=192.0.2.1 srcport=1 dstip=198.51.100.2 dstport=2",
        ),
        ("rule 2/0(match) drop", ""),
        ("none", ""),
    ];
    for (line, expected) in cases {
        assert_eq!(decode(&plugin("PF_Decoder"), line).listed(), expected, "{line}");
    }
}

#[test]
fn symantec_entries_are_told_by_their_numbers() {
    let cases = [
        (
            "1,2=5,10=bob,11=192.0.2.1,60=http://x/,9=z",
            "srcip=192.0.2.1 dstuser=bob id=2=5,10=bo url=http://x/",
        ),
        ("10=bob,11=192.0.2.1", "srcip=192.0.2.1"),
        ("1,10=bob,10=eve", "dstuser=bob"),
        ("1,3=1", "id=3=1"),
        ("none", ""),
    ];
    for (line, expected) in cases {
        assert_eq!(decode(&plugin("SymantecWS_Decoder"), line).listed(), expected, "{line}");
    }
    let long = format!("1,10={}", "x".repeat(300));
    assert_eq!(decode(&plugin("SymantecWS_Decoder"), &long).field("dstuser").map(str::len), Some(128));
}

fn sonic(line: &str) -> (Category, String) {
    let decoders = plugin("SonicWall_Decoder");
    let event = super::event(b'1', line);
    let hosts = HostNames::new("h");
    let mut decoded = predecode(&event, &hosts);
    decoders.decode(&mut decoded, &mut Scratch::new(), None);
    (decoded.category, decode(&decoders, line).listed())
}

#[test]
fn sonicwall_numbers_decide_the_type() {
    let tail = "n=1 src=192.0.2.1:400:X1 dst=198.51.100.2:80:X0 proto=tcp/http";
    let base = "srcip=192.0.2.1 srcport=400 dstip=198.51.100.2 dstport=80";
    for (head, category, action, id) in [
        ("pri=6 c=262144 m=98", Category::Firewall, "action=pass ", "98"),
        ("pri=6 c=1 m=38", Category::Firewall, "action=drop ", "38"),
        ("pri=6 c=1 m=537", Category::Firewall, "action=close ", "537"),
        ("pri=1 c=32 m=30", Category::Ids, "", "30"),
        ("pri=1 c=1 m=30", Category::Syslog, "", "30"),
    ] {
        let status = &head[4..5];
        let expected = format!("protocol=tcp {action}{base} id={id} status={status}");
        assert_eq!(sonic(&format!("{head} {tail}")), (category, expected), "{head}");
    }
    let web = "pri=6 c=1 m=97 n=1 src=192.0.2.1:400:X1 dst=198.51.100.2:80:X0 proto=tcp/http \
               op=GET result=200 dstname=example.org arg=/a";
    assert_eq!(
        sonic(web),
        (Category::Squid, format!("protocol=tcp {base} id=200 status=6 url=example.org/a"))
    );
    assert_eq!(sonic("pri=6 c=1 m=98 none"), (Category::Syslog, "id=98 status=6".into()));
    assert_eq!(sonic("none"), (Category::Syslog, String::new()));
}

const FORWARDED: &str = "ossec: Alert Level: 10; Rule: 5712 - text; Location: (web) 192.0.2.9->/var/log/auth; \
                         srcip: 203.0.113.5; user: bob; Original text";

#[test]
fn a_forwarded_alert_becomes_its_rule_if_that_exists() {
    let mut decoders = plugin("OSSECAlert_Decoder");
    assert_eq!(decode(&decoders, FORWARDED).result.forced_rule, None);
    decoders.set_rules([RuleId(5712)]);
    let event = super::event(b'1', FORWARDED);
    let hosts = HostNames::new("h");
    let mut decoded = predecode(&event, &hosts);
    let result = decoders.decode(&mut decoded, &mut Scratch::new(), None);
    assert_eq!(result.forced_rule, Some(RuleId(5712)));
    assert_eq!(decoded.field(StaticField::SrcIp), Some(&b"203.0.113.5"[..]));
    assert_eq!(decoded.field(StaticField::DstUser), Some(&b"bob"[..]));
    assert_eq!(&*decoded.location, b"stdin|(web) 192.0.2.9->/var/log/auth");
    assert_eq!((&*decoded.log, &*decoded.full_log), (&b"Original text"[..], &b"Original text"[..]));
}

#[test]
fn what_is_no_forwarded_alert_changes_nothing() {
    let mut decoders = plugin("OSSECAlert_Decoder");
    decoders.set_rules([RuleId(5712)]);
    for line in ["x", "Alert Level: 3", "Alert Level: 3; Rule: x", "Alert Level: 3; Rule: 5712 - text; none"]
    {
        let outcome = decode(&decoders, line);
        assert_eq!((outcome.result.forced_rule, outcome.listed()), (None, String::new()), "{line}");
    }
}
