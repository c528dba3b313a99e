//! `<auth>`: how agents get their keys.
//!
//! Options of other releases that have no effect here are passed over, those that would promise more than we do are told, and
//! so is what nobody knows.

use tld_xml::Element;

use crate::network::allow_higher;
use crate::reader::{Reader, parse_duration};
use crate::settings::{Auth, Force};

const AUTH: &[&str] = &[
    "disabled",
    "port",
    "ipv6",
    "remote_enrollment",
    "use_password",
    "use_source_ip",
    "purge",
    "force",
    "force_insert",
    "force_time",
    "limit_maxagents",
    "agents",
    "key_request",
    "ssl_agent_ca",
    "ssl_verify_host",
    "ssl_manager_cert",
    "ssl_manager_key",
    "ciphers",
    "ssl_auto_negotiate",
];
const FORCE: &[&str] = &["enabled", "key_mismatch", "disconnected_time", "after_registration_time"];

/// Reads one `<auth>`.
pub(crate) fn read(reader: &mut Reader<'_>, section: &Element, auth: &mut Auth) {
    for child in &section.children {
        match child.name.as_str() {
            "disabled" => reader.yes_no(child, &mut auth.disabled),
            "port" => reader.port(child, &mut auth.port),
            "use_password" => reader.yes_no(child, &mut auth.use_password),
            "use_source_ip" => reader.yes_no(child, &mut auth.use_source_ip),
            "purge" => reader.yes_no(child, &mut auth.purge),
            "force" => force(reader, child, &mut auth.force),
            "force_insert" => reader.yes_no(child, &mut auth.force.enabled),
            "force_time" => {
                let seconds = reader.number(child, 0, u32::MAX.into());
                auth.force.disconnected =
                    seconds.filter(|seconds| *seconds > 0).and_then(|s| s.try_into().ok());
            }
            "agents" => allow_higher(reader, child, &mut auth.allow_higher_versions),
            "ssl_agent_ca" => auth.agent_ca = reader.text(child),
            "ssl_verify_host" => reader.yes_no(child, &mut auth.verify_host),
            "ssl_manager_cert" => auth.certificate = reader.text(child),
            "ssl_manager_key" => auth.key = reader.text(child),
            "ciphers" if reader.text(child).is_some_and(|text| text != CIPHERS) => {
                let help =
                    "enrolment takes TLS 1.2 and 1.3 with forward secrecy and authenticated encryption only";
                reader.warning(child.name_span, "`ciphers` has no effect", help);
            }
            "key_request" => {
                let mut wanted = false;
                for enabled in child.children.iter().filter(|child| child.name == "enabled") {
                    reader.yes_no(enabled, &mut wanted);
                }
                if wanted {
                    let help =
                        "let agents enrol by themselves, or add them with `threatlockdown agents add|import`";
                    reader.warning(child.name_span, "`key_request` has no effect", help);
                }
            }
            "ssl_auto_negotiate" => {
                let mut older = false;
                reader.yes_no(child, &mut older);
                if older {
                    let message = "versions below TLS 1.2 are not spoken";
                    reader.warning(child.name_span, message, "take `ssl_auto_negotiate` out");
                }
            }
            _ => reader.left_out(child, "auth", AUTH),
        }
    }
    if auth.verify_host && auth.agent_ca.is_none() {
        let help = "add `<ssl_agent_ca>file</ssl_agent_ca>`, or take `ssl_verify_host` out";
        reader.error(Some(1235), section.name_span, "`ssl_verify_host` without `ssl_agent_ca`", help);
    }
}

/// The shipped value, which is on most installations.
const CIPHERS: &str = "HIGH:!ADH:!EXP:!MD5:!RC4:!3DES:!CAMELLIA:@STRENGTH";

fn force(reader: &mut Reader<'_>, section: &Element, force: &mut Force) {
    for child in &section.children {
        match child.name.as_str() {
            "enabled" => reader.yes_no(child, &mut force.enabled),
            "key_mismatch" => reader.yes_no(child, &mut force.key_mismatch),
            "disconnected_time" => {
                let off = reader.attribute(child, "enabled").as_deref() == Some("no");
                if let Some(seconds) = seconds(reader, child) {
                    force.disconnected = (!off).then_some(seconds);
                }
            }
            "after_registration_time" => {
                force.after_registration = seconds(reader, child).unwrap_or(force.after_registration);
            }
            _ => reader.left_out(child, "force", FORCE),
        }
    }
}

fn seconds(reader: &mut Reader<'_>, element: &Element) -> Option<u32> {
    let seconds = reader.text(element).as_deref().and_then(parse_duration);
    let seconds = seconds.and_then(|duration| u32::try_from(duration.as_secs()).ok());
    if seconds.is_none() {
        reader.invalid(element, "seconds, or a number with `s`, `m`, `h` or `d`");
    }
    seconds
}

#[cfg(test)]
mod tests {
    use tld_xml::Source;

    use super::*;
    use crate::{Loaded, Role, parse};

    fn read(body: &str) -> Loaded {
        let text = format!("<ossec_config><auth>{body}</auth></ossec_config>");
        parse(&Source::new("etc/ossec.conf", text.into_bytes()), Role::Manager)
    }

    #[test]
    fn the_shipped_block_is_read_without_a_word() {
        let loaded = read(
            "<disabled>no</disabled><port>1515</port><use_source_ip>no</use_source_ip><force><enabled>yes</enabled>\
             <key_mismatch>yes</key_mismatch><disconnected_time enabled=\"yes\">1h</disconnected_time>\
             <after_registration_time>1h</after_registration_time></force><purge>yes</purge>\
             <use_password>no</use_password><ciphers>HIGH:!ADH:!EXP:!MD5:!RC4:!3DES:!CAMELLIA:@STRENGTH</ciphers>\
             <ssl_verify_host>no</ssl_verify_host><ssl_manager_cert>etc/sslmanager.cert</ssl_manager_cert>\
             <ssl_manager_key>etc/sslmanager.key</ssl_manager_key><ssl_auto_negotiate>no</ssl_auto_negotiate>",
        );
        assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
        let auth = loaded.settings.auth;
        assert_eq!((auth.force, auth.purge), (Force::default(), true));
        assert_eq!(auth.certificate.as_deref(), Some("etc/sslmanager.cert"));
    }

    #[test]
    fn force_and_certificates_are_the_operators() {
        let loaded = read(
            "<force><key_mismatch>no</key_mismatch><disconnected_time enabled=\"no\">5m</disconnected_time>\
             <after_registration_time>0</after_registration_time></force><ssl_agent_ca>etc/ca.pem</ssl_agent_ca>\
             <ssl_verify_host>yes</ssl_verify_host><agents><allow_higher_versions>yes</allow_higher_versions></agents>",
        );
        assert!(!loaded.has_errors());
        let auth = loaded.settings.auth;
        let force = Force { enabled: true, key_mismatch: false, disconnected: None, after_registration: 0 };
        assert_eq!((auth.force, auth.allow_higher_versions, auth.verify_host), (force, true, true));
    }

    #[test]
    fn what_would_promise_too_much_is_told() {
        assert!(read("<ssl_verify_host>yes</ssl_verify_host>").has_errors());
        assert!(read("<force><disconnected_time>soon</disconnected_time></force>").has_errors());
        for warned in [
            "<ciphers>ALL</ciphers>",
            "<ssl_auto_negotiate>yes</ssl_auto_negotiate>",
            "<key_request><enabled>yes</enabled></key_request>",
            "<use_pasword>yes</use_pasword>",
            "<force><key-mismatch>no</key-mismatch></force>",
        ] {
            let loaded = read(warned);
            assert!(!loaded.has_errors() && loaded.diagnostics.len() == 1, "{warned}");
        }
    }
}
