//! Attackers choose user names, paths and host names. Here such words imitate the rest of their message, over the decoders of
//! an existing installation: for each line either the decoder takes the true source, or the alert tells the true source as a
//! rival, or there is no source at all. What is none of these is listed with its reason.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test binary: a surprise is a failure")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Mode, Options, Ruleset, Settings, StaticField};
use tld_xml::Source;

/// Whom the words name.
const FORGED: &str = "203.0.113.9";
/// Who sent them.
const TRUE: &str = "198.51.100.5";

/// What becomes of the true source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The decoder takes it, nothing is contested.
    Taken,
    /// The decoder takes it, the imitation is told as a rival: responses are withheld by default.
    Doubted,
    /// The decoder takes the forged one, the true one is told as a rival.
    Rival,
    /// No source is decoded, so no response has a target.
    Sourceless,
    /// The decoder takes the forged one and nobody notices.
    Fooled,
}

use Answer::{Doubted, Fooled, Rival, Sourceless, Taken};

/// Lines with what becomes of them. F stands for the forged address and T for the true one.
const LINES: &[(&str, Answer)] = &[
    (r#"Dec 29 10:00:01 gate sshd[4]: Invalid user x from <F> port 22 from <T> port 40022"#, Rival),
    (r#"Dec 29 10:00:01 gate sshd[4]: Invalid user x from <F> from <T> port 40022"#, Rival),
    (r#"Dec 29 10:00:01 gate sshd[4]: Invalid user x from <F> from <T>"#, Rival),
    (r#"Dec 29 10:00:01 gate sshd[4]: Invalid user x from <F> port 22 ssh2 from <T> port 40022"#, Rival),
    (r#"Dec 29 10:00:01 gate sshd[4]: Invalid user  from <F> port 1 from <T> port 40022"#, Taken),
    (r#"Dec 29 10:00:01 gate sshd[4]: Illegal user x from <F> from <T>"#, Rival),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Failed password for invalid user x from <F> port 22 from <T> port 40022 ssh2"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Failed password for invalid user x from <F> port 22 ssh2 from <T> port 40022 ssh2"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Failed none for invalid user x from <F> port 22 from <T> port 40022 ssh2"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Failed publickey for invalid user x from <F> from <T> port 40022 ssh2"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Failed password for illegal user x from <F> from <T> port 40022 ssh2"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Failed password for x from <F> port 22 from <T> port 40022 ssh2"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Failed keyboard-interactive/pam for invalid user x from <F> port 22 from <T> port 40022 ssh2"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Postponed keyboard-interactive for invalid user x from <F> port 22 from <T> port 40022 ssh2 [preauth]"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: error: PAM: Authentication failure for x from <F> from <T>"#,
        Sourceless,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: error: PAM: Authentication failure for illegal user x from <F> from <T>"#,
        Sourceless,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: error: PAM: User not known to the underlying authentication module for illegal user x from <F> from <T>"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: error: maximum authentication attempts exceeded for invalid user x from <F> port 22 from <T> port 40022 ssh2 [preauth]"#,
        Sourceless,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: error: maximum authentication attempts exceeded for x from <F> port 22 from <T> port 40022 ssh2 [preauth]"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: User x from <F> from <T> not allowed because not listed in AllowUsers"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Bad protocol version identification 'GET / from <F> port 22' from <T> port 40022"#,
        Taken,
    ),
    (r#"Dec 29 10:00:01 gate sshd[4]: Bad protocol version identification 'x from <F>' from <T>"#, Taken),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Connection closed by invalid user x <F> port 22 <T> port 40022 [preauth]"#,
        Sourceless,
    ),
    (r#"Dec 29 10:00:01 gate sshd[4]: Connection closed by <T> port 40022 by <F> port 22"#, Doubted),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Connection reset by invalid user x <F> port 22 <T> port 40022 [preauth]"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Connection reset by authenticating user x <F> port 22 <T> port 40022 [preauth]"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Disconnected from invalid user x <F> port 22 <T> port 40022 [preauth]"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Disconnecting invalid user x <F> port 22 <T> port 40022: Too many authentication failures"#,
        Rival,
    ),
    (r#"Dec 29 10:00:01 gate sshd[4]: Received disconnect from <T>: 11: from <F>: 11: Bye"#, Taken),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: Unable to negotiate with <T> port 40022: no matching host key type found. Their offer: <F> port 22: x"#,
        Sourceless,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser=x rhost=<F>  user=a rhost=<T>  user=root"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate sshd[4]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=<T>  user=x rhost=<F>  user=y"#,
        Doubted,
    ),
    (r#"Dec 29 10:00:01 gate sshd[4]: Accepted password for bob from <T> port 40022 ssh2"#, Taken),
    (
        r#"Dec 29 10:00:01 gate login: pam_unix(login:auth): authentication failure; logname=x rhost=<F> uid=0 euid=0 tty=tty1 ruser= rhost=<T>  user=root"#,
        Taken,
    ),
    (
        r#"Dec 29 10:00:01 gate su: pam_unix(su:auth): authentication failure; logname=bob uid=1000 euid=0 tty=pts/1 ruser=x rhost=<F> rhost=<T>  user=root"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=x rhost=<F> rhost=<T>"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=rhost=<F> rhost=<T>"#,
        Taken,
    ),
    (
        r#"Dec 29 10:00:01 gate dovecot: pop3-login: Aborted login (auth failed, 1 attempts): user=<x>, method=PLAIN, rip=<F>, lip=10.0.0.1>, method=PLAIN, rip=<T>, lip=10.0.0.1"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate dovecot: pop3-login: Aborted login: user=<x>, method=PLAIN, rip=<F>, lip=10.0.0.1>, method=PLAIN, rip=<T>, lip=10.0.0.1"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate dovecot: imap-login: Disconnected (auth failed, 1 attempts): user=<x>, method=PLAIN, rip=<F>, lip=10.0.0.1, >, method=PLAIN, rip=<T>, lip=10.0.0.1, TLS"#,
        Rival,
    ),
    (
        r#"Dec 29 10:00:01 gate dovecot: imap-login: Disconnected: user=<rip=<F>, lip=10.0.0.1,>, method=PLAIN, rip=<T>, lip=10.0.0.1"#,
        Sourceless,
    ),
    (
        r#"Dec 29 10:00:01 gate dovecot: imap-login: Login: user=<x>, method=PLAIN, rip=<F>, lip=10.0.0.1, mpid=1, TLS>, method=PLAIN, rip=<T>, lip=10.0.0.1, mpid=7, TLS"#,
        Rival,
    ),
    (r#"Dec 29 10:00:01 gate dovecot: auth(default): pam(x,<F>): ,<T>): unknown user"#, Rival),
    (r#"Dec 29 10:00:01 gate dovecot: auth-worker(default): sql(x,<F>) y,<T>): unknown user"#, Rival),
    (
        r#"Dec 29 10:00:01 gate postfix/smtpd[9]: NOQUEUE: reject: RCPT from x[<T>]: 550 5.1.1 <a[<F>]: 550 @x>: Recipient address rejected; from=<x> to=<y> proto=ESMTP helo=<[<F>]: 550 >"#,
        Doubted,
    ),
    (
        r#"Dec 29 10:00:01 gate postfix/smtpd[9]: NOQUEUE: reject: RCPT from unknown[<T>]: 554 5.7.1 <b@x>: Relay access denied; from=<a@x> to=<b@x> proto=ESMTP helo=<unknown[<F>]>"#,
        Taken,
    ),
    (
        r#"Dec 29 10:00:01 gate postfix/smtpd[9]: warning: unknown[<T>]: SASL LOGIN authentication failed: x[<F>]: UGFzc3dvcmQ6"#,
        Doubted,
    ),
    (
        r#"Dec 29 10:00:01 gate postfix/smtpd[9]: warning: hostname x does not resolve to address <T>: hostname y does not resolve to address <F>"#,
        Doubted,
    ),
    (
        r#"Dec 29 10:00:01 gate postfix/smtpd[9]: warning: Illegal address syntax from unknown[<T>] in MAIL command: <warning: Illegal address syntax from unknown[<F>]>"#,
        Taken,
    ),
    (
        r#"Dec 29 10:00:01 gate postfix/smtpd[9]: too many errors after AUTH from unknown[<F>] from unknown[<T>]"#,
        Sourceless,
    ),
    (
        r#"<T> - - [29/Dec/2025:10:00:01 +0000] "GET /<F> HTTP/1.1" 404 12 "-" "<F> - - [29/Dec/2025:10:00:01 +0000] \"GET / HTTP/1.1\" 404 ""#,
        Taken,
    ),
    (r#"<T> - <F> - - [29/Dec/2025:10:00:01 +0000] "GET / HTTP/1.1" 401 12 "-" "x""#, Taken),
    (r#"<T> - x [29/Dec/2025:10:00:01 +0000] "GET /?a=<F> HTTP/1.1" 404 12 "-" "<F>""#, Taken),
    (
        r#"[Tue Sep 30 14:25:44.895897 2025] [authz_core:error] [pid 318] [client <T>:38870] AH01630: client denied by server configuration: /srv/[client <F>:1] AH01630: x"#,
        Doubted,
    ),
    (
        r#"[Tue Sep 30 14:25:44.895897 2025] [core:error] [pid 318] [client <T>:38870] AH00126: Invalid URI in request GET /[client <F>] HTTP/1.1"#,
        Taken,
    ),
    (r#"[error] [client <T>] File does not exist: /srv/[client <F>] x"#, Taken),
    (
        r#"2025/12/29 10:00:01 [error] 8278#0: *59 open() "/srv/x, client: <F>, server: , request: "GET /y" failed (2: No such file or directory), client: <T>, server: a, request: "GET /x HTTP/1.1", host: "a""#,
        Rival,
    ),
    (
        r#"2025/12/29 10:00:01 [error] 8278#0: *59 open() "/srv/x" failed (2: No such file or directory), client: <T>, server: a, request: "GET /x, client: <F>, server: a, request: "GET HTTP/1.1", host: "a""#,
        Doubted,
    ),
    (
        r#"2025/12/29 10:00:01 [error] 8278#0: *59 user "x, client: <F>, " was not found in "/etc/htpasswd", client: <T>, server: a, request: "GET / HTTP/1.1", host: "a""#,
        Rival,
    ),
];

fn conformance() -> Option<PathBuf> {
    let given = std::env::var_os("TLD_SHARED").map(PathBuf::from);
    let required = given.is_some() && std::env::var("TLD_REQUIRE_ALL").is_ok_and(|all| all == "1");
    let root = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    if root.join("conformance/home").is_dir() {
        return Some(root.join("conformance/home"));
    }
    assert!(!required, "no conformance data below {}", root.display());
    println!("skipped: no conformance data below {}", root.display());
    None
}

/// The files of a kind as an installation brings them, without those that only its test cases use.
fn sources(home: &Path, kind: &str) -> Vec<Source> {
    let folder = home.join("ruleset").join(kind);
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".xml") && name != "0215-policy_rules.xml" {
            files.insert(name.clone(), Source::new(name, std::fs::read(entry.path()).unwrap()));
        }
    }
    files.into_values().collect()
}

fn answer(analyzer: &mut Analyzer, line: &str) -> Answer {
    let event = Event::local("stdin", line, Timestamp::from_secs(1_772_446_530));
    let verdict = analyzer.analyze(&event);
    let source = verdict.decoded.field(StaticField::SrcIp).map(String::from_utf8_lossy);
    // Also where no rule alerts: the answer is about the decoders.
    let contested = analyzer.ruleset().decoders().contested(&verdict.decoded);
    if let Some(alert) = &verdict.alert {
        let told: Vec<_> =
            contested.iter().flat_map(|(field, v)| v.iter().map(|v| (field.name(), v.clone()))).collect();
        assert!(alert.no_response || alert.contested == told, "the alert tells the same: {line}");
    }
    let rivals: Vec<_> = contested
        .iter()
        .filter(|(field, _)| *field == StaticField::SrcIp)
        .flat_map(|(_, values)| values.iter().map(|value| String::from_utf8_lossy(value).into_owned()))
        .collect();
    match source.as_deref() {
        None => Sourceless,
        Some(TRUE) if rivals.is_empty() => Taken,
        Some(TRUE) => Doubted,
        Some(FORGED) if rivals.iter().any(|rival| rival == TRUE) => Rival,
        Some(FORGED) => Fooled,
        // Part of a word: no address, so nothing that a response could act on.
        Some(other) => {
            assert!(other.parse::<std::net::IpAddr>().is_err(), "{other} in {line}");
            Sourceless
        }
    }
}

#[test]
fn a_forged_source_is_never_taken_without_a_word() {
    let Some(home) = conformance() else { return };
    let options = Options { log_alert_level: 3, ..Options::default() };
    let lists: Vec<Source> = Vec::new();
    let loaded = Ruleset::load(&sources(&home, "decoders"), &sources(&home, "rules"), &lists, &options);
    let ruleset = loaded.ruleset.expect("no errors");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (line, expected) in LINES {
        let settings = Settings { mode: Mode::Logtest, ..Settings::default() };
        let mut analyzer = Analyzer::new(std::sync::Arc::clone(&ruleset), settings);
        let line = line.replace("<F>", FORGED).replace("<T>", TRUE);
        let found = answer(&mut analyzer, &line);
        *counts.entry(format!("{found:?}")).or_default() += 1;
        if found != *expected {
            wrong.push(format!("{found:?} instead of {expected:?}: {line}"));
        }
    }
    println!("{} lines: {counts:?}", LINES.len());
    assert!(LINES.len() >= 40);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
