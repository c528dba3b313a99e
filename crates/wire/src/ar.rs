//! Orders on their way to agents: the datagram between the manager's own processes, and the text for each generation
//! of agents.
//! Invariant: the agent's version alone chooses the form; nothing in an alert can.

use memchr::memchr;
use serde::Deserialize;
use tld_model::ExecMessage;

use crate::version::Version;

/// Longest datagram.
pub const LIMIT: usize = 65_536;
/// Longest text for agents before 4.2.
pub const LEGACY_LIMIT: usize = 1_023;

/// A request to forward something to agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed<'a> {
    /// To every connected agent.
    pub all: bool,
    /// What the payload is.
    pub kind: Kind,
    /// To the named agent.
    pub named: bool,
    /// The agent, as written; `(null)` by senders who mean all.
    pub agent: &'a str,
    /// What it is to receive.
    pub payload: &'a [u8],
}

/// The second flag of a routed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An active response for the agent where the event arose.
    Origin,
    /// An active response for whom the other flags name.
    Response,
    /// A control message that is no active response.
    Control,
}

/// The datagram is not a routed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request to forward lacks its {0}")]
pub struct RouteError(&'static str);

impl<'a> Routed<'a> {
    /// Reads a datagram, with or without a closing NUL.
    ///
    /// # Errors
    /// When a delimiter is missing.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, RouteError> {
        let text = datagram.strip_suffix(b"\0").unwrap_or(datagram);
        let rest = behind(text, b')').ok_or(RouteError("source"))?;
        let rest = behind(rest, b']').ok_or(RouteError("brackets"))?;
        let (flags, rest) = rest.split_first_chunk::<3>().ok_or(RouteError("flags"))?;
        let rest = rest.strip_prefix(b" ").ok_or(RouteError("flags"))?;
        let blank = memchr(b' ', rest).ok_or(RouteError("agent"))?;
        let agent = str::from_utf8(&rest[..blank]).ok().ok_or(RouteError("agent"))?;
        let kind = match flags[1] {
            b'R' => Kind::Origin,
            b'!' => Kind::Control,
            _ => Kind::Response,
        };
        let (all, named) = (flags[0] == b'A', flags[2] == b'S');
        Ok(Self { all, kind, named, agent, payload: &rest[blank + 1..] })
    }

    /// The datagram, without a closing NUL. `source` says who sends it (`local_source`, `msg_to_agent`).
    pub fn to_bytes(&self, source: &str) -> Vec<u8> {
        let second = match self.kind {
            Kind::Origin => 'R',
            Kind::Response => 'N',
            Kind::Control => '!',
        };
        let (first, third) = (if self.all { 'A' } else { 'N' }, if self.named { 'S' } else { 'N' });
        let agent = if self.all { "(null)" } else { self.agent };
        let mut datagram = format!("({source}) [] {first}{second}{third} {agent} ").into_bytes();
        datagram.extend_from_slice(self.payload);
        datagram
    }

    /// What the agent receives, before it is sealed.
    pub fn message(&self) -> Vec<u8> {
        let lead: &[u8] = if self.kind == Kind::Control { b"#!-" } else { b"#!-execd " };
        [lead, self.payload].concat()
    }

    /// Whether anyone is addressed at all; the contract drops a request without addressee silently.
    pub const fn has_addressee(&self) -> bool {
        self.all || self.named || matches!(self.kind, Kind::Origin)
    }
}

// The delimiter and the blank that follows it.
fn behind(text: &[u8], delimiter: u8) -> Option<&[u8]> {
    text.get(memchr(delimiter, text)? + 2..)
}

/// How agents of a version want their orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line of text.
    Legacy,
    /// JSON in which four characters are written as codes.
    Neutralised,
    /// JSON.
    Json,
}

impl Form {
    /// The form for a version. An agent whose version is unknown is taken for a current one.
    pub fn of(version: Option<Version>) -> Self {
        match version {
            Some(old) if old < Version::new(4, 2, 0) => Self::Legacy,
            Some(old) if old < Version::new(4, 2, 5) => Self::Neutralised,
            _ => Self::Json,
        }
    }
}

/// An order as agents of that form take it, to stand behind `#!-execd `.
///
/// # Errors
/// When the message does not encode.
pub fn text(form: Form, message: &ExecMessage) -> Result<String, serde_json::Error> {
    match form {
        Form::Json => message.to_line(),
        Form::Neutralised => Ok(neutralise(&message.to_line()?)),
        Form::Legacy => Ok(legacy(message)),
    }
}

/// The line for agents before 4.2, from what the alert says. A file that is named directly gets its arguments instead.
fn legacy(message: &ExecMessage) -> String {
    let parameters = &message.parameters;
    if message.command.starts_with('!') {
        let words: Vec<_> = parameters.extra_args.iter().map(|word| shell_escape(word)).collect();
        let words = if words.is_empty() { "- -".to_owned() } else { words.join(" ") };
        let mut line = format!("{} {words}", message.command).replace(['\n', '\r', '\0'], " ");
        line.truncate(line.floor_char_boundary(LEGACY_LIMIT));
        return line;
    }
    // An alert of another shape names nothing; the line then says so with its dashes.
    let alert: Cause = serde_json::from_str(parameters.alert.get()).unwrap_or_default();
    let location = match &alert.agent {
        Some(agent) => format!(
            "({}) {}->{}",
            agent.name,
            agent.ip.as_deref().unwrap_or("any"),
            alert.location.as_deref().unwrap_or("-")
        ),
        None => alert.location.unwrap_or_else(|| "-".into()),
    };
    let extra = parameters.extra_args.join(" ");
    let words = Legacy {
        response: &message.command,
        user: alert.data.dstuser.as_deref(),
        ip: alert.data.srcip.as_deref(),
        alert_id: alert.id.as_deref().unwrap_or("-"),
        rule: alert.rule.id.as_deref().unwrap_or("-"),
        location: &location,
        file: alert.syscheck.path.as_deref(),
        extra: Some(extra.as_str()).filter(|extra| !extra.is_empty()),
    };
    words.to_line()
}

/// What the legacy line takes from an alert.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    id: Option<String>,
    rule: CauseRule,
    agent: Option<CauseAgent>,
    location: Option<String>,
    syscheck: CauseFile,
    data: CauseData,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CauseRule {
    id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CauseAgent {
    name: String,
    ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CauseFile {
    path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CauseData {
    srcip: Option<String>,
    dstuser: Option<String>,
}

/// JSON in the form for 4.2.0 to 4.2.4.
pub fn neutralise(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '!' => text.push_str(r"\\x21"),
            '$' => text.push_str(r"\\x24"),
            '\'' => text.push_str(r"\\x27"),
            '`' => text.push_str(r"\\x60"),
            _ => text.push(character),
        }
    }
    text
}

/// What the line for agents before 4.2 holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Legacy<'a> {
    /// Response name.
    pub response: &'a str,
    /// `dstuser`
    pub user: Option<&'a str>,
    /// `srcip`
    pub ip: Option<&'a str>,
    /// Seconds and count of the alert, as its id has them.
    pub alert_id: &'a str,
    /// The rule.
    pub rule: &'a str,
    /// Location of the event in the manager's form: `(name) ip->path`.
    pub location: &'a str,
    /// Path of a file integrity event.
    pub file: Option<&'a str>,
    /// Extra arguments as configured.
    pub extra: Option<&'a str>,
}

impl Legacy<'_> {
    /// The line, cut at the length that those agents take.
    pub fn to_line(&self) -> String {
        let one_line = |text: &str| text.replace(['\n', '\r', '\0'], " ");
        let user = one_line(self.user.unwrap_or("-"));
        let ip = self.ip.map_or("-", |ip| ip.strip_prefix("::ffff:").unwrap_or(ip));
        let file = self.file.map_or_else(|| "-".into(), |file| one_line(&shell_escape(file)));
        let extra = self.extra.map_or_else(|| "-".into(), |extra| one_line(&shell_escape(extra)));
        let mut line = format!(
            "{} {user} {ip} {} {} {} {file} {extra}",
            self.response,
            self.alert_id,
            self.rule,
            one_line(self.location),
        );
        line.truncate(line.floor_char_boundary(LEGACY_LIMIT));
        line
    }
}

/// Puts a backslash before each character that a shell would understand, unless one stands there already.
pub fn shell_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\\' {
            escaped.push('\\');
            // A pair that escapes already stays one; a lone backslash is escaped itself.
            match characters.next_if(|next| is_special(*next)) {
                Some(next) => escaped.push(next),
                None => escaped.push('\\'),
            }
            continue;
        }
        if is_special(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

const fn is_special(character: char) -> bool {
    matches!(
        character,
        '\\' | '"'
            | '\''
            | '\t'
            | ';'
            | '`'
            | '>'
            | '<'
            | '|'
            | '#'
            | '*'
            | '['
            | ']'
            | '{'
            | '}'
            | '&'
            | '$'
            | '!'
            | ':'
            | '('
            | ')'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_read_as_the_receiver_reads_them() {
        let routed = Routed::parse(b"(local_source) [] NRN 001 {\"version\":1}").unwrap();
        assert_eq!(
            (routed.kind, routed.agent, routed.payload),
            (Kind::Origin, "001", &b"{\"version\":1}"[..])
        );
        assert_eq!(routed.message(), b"#!-execd {\"version\":1}");
        let all = Routed::parse(b"(msg_to_agent) [] A!N (null) syscheck restart\0").unwrap();
        assert!(all.all && all.has_addressee());
        assert_eq!(all.message(), b"#!-syscheck restart");
        let named = Routed::parse(b"(x) [y] NNS 002 force").unwrap();
        assert!(named.named && !named.all);
        assert!(!Routed::parse(b"(x) [] NNN 002 force").unwrap().has_addressee());
    }

    #[test]
    fn a_missing_delimiter_drops_the_request() {
        for (bad, what) in [
            ("", "source"),
            ("(x", "source"),
            ("(x)", "source"),
            ("(x) [ NRN 001 m", "brackets"),
            ("(x) [] NR", "flags"),
            ("(x) [] NRN001 m", "flags"),
            ("(x) [] NRN 001", "agent"),
        ] {
            assert_eq!(Routed::parse(bad.as_bytes()), Err(RouteError(what)), "{bad}");
        }
    }

    #[test]
    fn the_version_chooses_the_form() {
        for (version, form) in [
            ("v3.13.6", Form::Legacy),
            ("v4.1.5", Form::Legacy),
            ("v4.2.0", Form::Neutralised),
            ("v4.2.4", Form::Neutralised),
            ("v4.2.5", Form::Json),
            ("v4.14.7", Form::Json),
        ] {
            assert_eq!(Form::of(version.parse().ok()), form, "{version}");
        }
        assert_eq!(Form::of(None), Form::Json);
    }

    #[test]
    fn four_characters_are_neutralised() {
        assert_eq!(neutralise(r#"{"a":"!$'`x"}"#), r#"{"a":"\\x21\\x24\\x27\\x60x"}"#);
    }

    #[test]
    fn the_legacy_line_has_eight_fields() {
        let legacy = Legacy {
            response: "firewall-drop600",
            user: Some("bob"),
            ip: Some("::ffff:203.0.113.7"),
            alert_id: "1772446530.48213",
            rule: "100200",
            location: "(web01) 10.0.0.21->/var/log/auth.log",
            file: None,
            extra: None,
        };
        assert_eq!(
            legacy.to_line(),
            "firewall-drop600 bob 203.0.113.7 1772446530.48213 100200 (web01) 10.0.0.21->/var/log/auth.log - -"
        );
        let long = "ä".repeat(2_000);
        let hostile = Legacy { user: Some("bob\nrm"), extra: Some(&long), ..legacy };
        assert!(!hostile.to_line().contains('\n'));
        assert_eq!(hostile.to_line().len(), LEGACY_LIMIT - usize::from(hostile.to_line().len() == 1_022));
    }

    #[test]
    fn an_order_takes_the_form_of_the_agents_generation() {
        let json = r#"{"version":1,"origin":{"name":"n","module":"wazuh-analysisd"},"command":"firewall-drop600","parameters":{"extra_args":["-x","2"],"alert":{"rule":{"id":"100200"},"agent":{"id":"001","name":"web01","ip":"10.0.0.21"},"id":"1772446530.48213","data":{"srcip":"203.0.113.7","dstuser":"it's"},"location":"/var/log/auth.log"}}}"#;
        let message: ExecMessage = serde_json::from_str(json).unwrap();
        assert_eq!(text(Form::Json, &message).unwrap(), json);
        assert_eq!(text(Form::Neutralised, &message).unwrap(), json.replace('\'', r"\\x27"));
        assert_eq!(
            text(Form::Legacy, &message).unwrap(),
            "firewall-drop600 it's 203.0.113.7 1772446530.48213 100200 (web01) 10.0.0.21->/var/log/auth.log - -x 2"
        );
    }

    #[test]
    fn a_legacy_agent_gets_the_arguments_of_a_file_that_is_named_directly() {
        let json = |words: &str| {
            format!(
                r#"{{"version":1,"origin":{{"name":null,"module":"API"}},"command":"!custom-ar","parameters":{{"extra_args":{words},"alert":{{}}}}}}"#
            )
        };
        let legacy = |words| text(Form::Legacy, &serde_json::from_str(&json(words)).unwrap()).unwrap();
        assert_eq!(legacy(r#"["a","b;c"]"#), r"!custom-ar a b\;c");
        assert_eq!(legacy("[]"), "!custom-ar - -");
    }

    #[test]
    fn shell_characters_get_one_backslash() {
        for character in "\"'\t;`><|#*[]{}&$!:()".chars() {
            assert_eq!(shell_escape(&character.to_string()), format!("\\{character}"));
        }
        assert_eq!(shell_escape(r"a\$b$c\d\"), r"a\$b\$c\\d\\");
        assert_eq!(shell_escape("plain-text_1.log /x"), "plain-text_1.log /x");
    }

    proptest! {
        #[test]
        fn escaping_twice_changes_nothing(text in "[a\\\\$;'x ]{0,30}") {
            let once = shell_escape(&text);
            prop_assert_eq!(shell_escape(&once), once);
        }

        #[test]
        fn requests_round_trip(agent in "[0-9]{3}", control: bool, named: bool, payload in prop::collection::vec(1u8.., 0..50)) {
            let kind = if control { Kind::Control } else { Kind::Origin };
            let routed = Routed { all: false, kind, named, agent: &agent, payload: &payload };
            let datagram = routed.to_bytes("local_source");
            prop_assert_eq!(Routed::parse(&datagram), Ok(routed));
        }

        #[test]
        fn any_datagram_is_survived(bytes in "[()\\[\\] NRAS!01]{0,40}") {
            let _ = Routed::parse(bytes.as_bytes()).map(|routed| routed.message());
        }
    }
}
