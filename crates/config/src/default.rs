//! The configuration of a new installation, and the one of the demonstration.
//!
//! Invariant: both load without a problem, and no response is active by default.

use std::path::Path;

/// What the first start writes when there is no `etc/ossec.conf`.
pub const DEFAULT_OSSEC_CONF: &str = concat!(
    include_str!("default/head.conf"),
    include_str!("default/logs.conf"),
    include_str!("default/tail.conf")
);

const HEAD: &str = include_str!("default/head.conf");
const TAIL: &str = include_str!("default/tail.conf");
const DEMO_RESPONSE: &str =
    "  <!-- The demonstration: eight seconds are enough to watch a block come and go. -->
  <active-response>
    <disabled>no</disabled>
    <command>firewall-drop</command>
    <location>local</location>
    <rules_id>5763,5712,5720,5551</rules_id>
    <timeout>8</timeout>
  </active-response>

";

/// The default with one watched file in place of the host's logs, and an active response.
pub fn demo_conf(watched: &Path) -> String {
    let path = watched.display();
    format!(
        "{HEAD}  <localfile>\n    <log_format>syslog</log_format>\n    <location>{path}</location>\n  </localfile>\n\n{DEMO_RESPONSE}{TAIL}"
    )
}
