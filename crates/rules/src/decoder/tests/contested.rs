//! Lines in which a captured target could have been another one.

use super::{Scratch, event, loaded, text};
use crate::predecode::{HostNames, predecode};

fn contested(xml: &str, line: &str) -> String {
    let decoders = loaded(xml);
    let event = event(b'1', line);
    let hosts = HostNames::new("h");
    let mut decoded = predecode(&event, &hosts);
    decoders.decode(&mut decoded, &mut Scratch::new(), None);
    let found = decoders.contested(&decoded);
    let shown = found.iter().map(|(field, values)| {
        let values: Vec<String> = values.iter().map(|value| text(value)).collect();
        format!("{}: {}", field.name(), values.join(", "))
    });
    shown.collect::<Vec<_>>().join("; ")
}

const SSH: &str = r#"
    <decoder name="sshd"><program_name>^sshd</program_name></decoder>
    <decoder name="inv"><parent>sshd</parent><prematch>^Invalid user</prematch>
      <regex offset="after_prematch">(\S+) from (\S+)</regex><order>srcuser, srcip</order></decoder>
    <decoder name="inv"><parent>sshd</parent><regex offset="after_regex">port (\S+)</regex>
      <order>srcport</order></decoder>
    <decoder name="fail"><parent>sshd</parent><prematch>^Failed \S+ </prematch>
      <regex offset="after_prematch">^for (\S+) from (\S+) port</regex><order>user, srcip</order></decoder>
    <decoder name="pam"><parent>sshd</parent><prematch>rhost=</prematch>
      <regex>rhost=(\S+)\s+user=(\S+)</regex><order>srcip, user</order></decoder>
    <decoder name="end"><parent>sshd</parent><prematch>^Bad </prematch>
      <regex offset="after_prematch"> from (\S+)$</regex><order>srcip</order></decoder>
    <decoder name="gone"><parent>sshd</parent><prematch>^Disconnected from user </prematch>
      <regex offset="after_prematch">^(\S+) (\S+) port (\d+)</regex><order>srcuser, srcip</order></decoder>
    <decoder name="shut"><parent>sshd</parent><prematch>^Shut </prematch>
      <regex offset="after_prematch">^by (\S+) for (\S+)</regex><order>srcip, user</order></decoder>"#;

#[test]
fn only_lines_that_hold_a_second_target_are_contested() {
    let cases = [
        ("Invalid user x from 203.0.113.9 port 22 from 198.51.100.5 port 40022", "srcip: 198.51.100.5"),
        ("Invalid user x from 203.0.113.9 from 198.51.100.5 port 40022", "srcip: 198.51.100.5"),
        ("Invalid user x from 203.0.113.9 port 22 from 2001:db8::1 port 4", "srcip: 2001:db8::1"),
        (
            "Invalid user x from 203.0.113.9 from 192.0.2.1 from 198.51.100.5 port 4",
            "srcip: 192.0.2.1, 198.51.100.5",
        ),
        ("Invalid user bob from 198.51.100.5 port 40022", ""),
        ("Invalid user bob from 198.51.100.5", ""),
        ("Invalid user x from 198.51.100.5 port 22 from 198.51.100.5 port 40022", ""),
        ("Invalid user x from 198.51.100.5 port 22 from ::ffff:198.51.100.5 port 40022", ""),
        ("Invalid user x from here from there", ""),
        ("Invalid user x from here from 198.51.100.5 port 4", "srcip: 198.51.100.5"),
        ("Failed password for bob from 198.51.100.5 port 4 ssh2", ""),
        ("pam: rhost=198.51.100.5  user=bob", ""),
        ("pam: rhost=198.51.100.5 user=a rhost=192.0.2.1 user=b", "srcip: 192.0.2.1; dstuser: b"),
        ("Bad thing from 203.0.113.9 from 198.51.100.5", ""),
        // Bound to the beginning, but with a name before the address.
        (
            "Failed password for x from 203.0.113.9 port 22 from 198.51.100.5 port 4 ssh2",
            "srcip: 198.51.100.5",
        ),
        ("Failed password for x from 203.0.113.9 port 22 from 203.0.113.9 port 4 ssh2", ""),
        ("Disconnected from user bob 198.51.100.5 port 4", ""),
        ("Disconnected from user x 203.0.113.9 port 2 198.51.100.5 port 4", "srcip: 198.51.100.5"),
        ("Disconnected from user x 203.0.113.9 port 2 on 10 port 4", ""),
        // Nothing stands before the address, so a later one is only talk; the name's place can be imitated.
        ("Shut by 198.51.100.5 for bob by 203.0.113.9 for bob", ""),
        ("Shut by 198.51.100.5 for bob by 203.0.113.9 for eve", "dstuser: eve"),
    ];
    for (line, expected) in cases {
        assert_eq!(contested(SSH, &format!("Dec 29 10:00:01 gate sshd[4]: {line}")), expected, "{line}");
    }
}

#[test]
fn events_without_decoder_or_from_built_in_ones_are_never_contested() {
    assert_eq!(contested(SSH, "none"), "");
}
