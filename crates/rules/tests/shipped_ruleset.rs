//! The ruleset that we ship, judged by the engine that loads it: which rule wins, and above all whose address it
//! names. The generator of attack logs and the collected log lines come from the shared data, where there is any.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tld_model::{Event, Timestamp};
use tld_rules::{Analyzer, Mode, Options, Ruleset, Settings, StaticField};
use tld_xml::Source;

const NOON: i64 = 1_700_000_000;
const A: &str = "198.51.100.7";
const VICTIM: &str = "203.0.113.9";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(kind: &str) -> Vec<Source> {
    let directory = project().join("ruleset").join(kind);
    let mut names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".xml"))
        .collect();
    names.sort();
    let read = |name: String| {
        let text = std::fs::read(directory.join(&name)).unwrap();
        Source::new(format!("ruleset/{kind}/{name}"), text)
    };
    names.into_iter().map(read).collect()
}

fn ruleset() -> Arc<Ruleset> {
    static RULESET: OnceLock<Arc<Ruleset>> = OnceLock::new();
    let load = || {
        let options = Options { log_alert_level: 3, email_alert_level: 12, ..Options::default() };
        let loaded = Ruleset::load(&sources("decoders"), &sources("rules"), &[], &options);
        let said: Vec<String> = loaded.diagnostics.iter().map(|one| one.render(false)).collect();
        assert!(said.is_empty(), "the shipped ruleset loads without a word:\n{}", said.join("\n"));
        loaded.ruleset.unwrap()
    };
    Arc::clone(RULESET.get_or_init(load))
}

fn analyzer(mode: Mode) -> Analyzer {
    Analyzer::new(ruleset(), Settings { mode, with_plain: false, ..Settings::default() })
}

fn shared(part: &str) -> Option<PathBuf> {
    let given = std::env::var_os("TLD_SHARED").map(PathBuf::from);
    let required = given.is_some() && std::env::var("TLD_REQUIRE_ALL").is_ok_and(|all| all == "1");
    let path = given.unwrap_or_else(|| project().join("../shared")).join(part);
    if path.exists() {
        return Some(path);
    }
    assert!(!required, "no {}", path.display());
    println!("skipped: no {}", path.display());
    None
}

/// What one line alone makes of a fresh analyzer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    rule: u32,
    level: u8,
    srcip: String,
    dstuser: String,
    srcuser: String,
    contested: bool,
}

fn judge(line: &str) -> Seen {
    let mut analyzer = analyzer(Mode::Logtest);
    let event = Event::local("/var/log/auth.log", line, Timestamp::from_secs(NOON));
    let verdict = analyzer.analyze(&event);
    let field =
        |field| String::from_utf8_lossy(verdict.decoded.field(field).unwrap_or_default()).into_owned();
    let rule = verdict.rule.as_ref();
    Seen {
        rule: rule.map_or(0, |rule| rule.id.to_string().parse().unwrap()),
        level: rule.map_or(0, |rule| rule.level),
        srcip: field(StaticField::SrcIp),
        dstuser: field(StaticField::DstUser),
        srcuser: field(StaticField::SrcUser),
        contested: verdict.alert.as_ref().is_some_and(|alert| !alert.contested.is_empty()),
    }
}

fn headers() -> [&'static str; 4] {
    [
        "Nov 11 08:04:51 web01 sshd[2737]: ",
        "Nov 11 08:04:51 web01 sshd-session[2737]: ",
        "2025-11-11T08:04:51.123456+00:00 web01 sshd-session[2737]: ",
        "2025-11-11T08:04:51+02:00 web01 sshd-auth[2737]: ",
    ]
}

/// Message of sshd, rule, address, `dstuser` or (when there is none) `srcuser`.
const SSHD: &[(&str, u32, &str, &str)] = &[
    ("Invalid user admin from 198.51.100.7 port 40022", 5710, A, "admin"),
    ("Invalid user admin from 198.51.100.7", 5710, A, "admin"),
    ("Invalid user  from 198.51.100.7 port 40022", 5710, A, ""),
    ("Invalid user a b  c from 198.51.100.7 port 40022", 5710, A, "a b  c"),
    ("Invalid user x from 2001:db8::7 port 40022", 5710, "2001:db8::7", "x"),
    ("Invalid user x from ::ffff:198.51.100.7 port 40022", 5710, "::ffff:198.51.100.7", "x"),
    ("Invalid user x from host.example.com port 40022", 5710, "host.example.com", "x"),
    ("Failed password for invalid user admin from 198.51.100.7 port 40022 ssh2", 5710, A, "admin"),
    ("Failed password for invalid user  from 198.51.100.7 port 40022 ssh2", 5710, A, ""),
    ("Failed none for invalid user admin from 198.51.100.7 port 40022 ssh2", 5710, A, "admin"),
    ("Failed keyboard-interactive/pam for invalid user a$b from 198.51.100.7 port 4 ssh2", 5710, A, "a$b"),
    ("Failed publickey for invalid user git from 198.51.100.7 port 4 ssh2: RSA SHA256:abc", 5710, A, "git"),
    ("Failed password for root from 198.51.100.7 port 40022 ssh2", 5760, A, "root"),
    ("Failed password for root from 2001:db8:1::7 port 40022 ssh2", 5760, "2001:db8:1::7", "root"),
    ("Failed password for root from 198.51.100.7 port 40022", 5760, A, "root"),
    ("Failed publickey for git from 198.51.100.7 port 40022 ssh2: ED25519 SHA256:abc", 5761, A, "git"),
    ("error: PAM: Authentication failure for root from 198.51.100.7", 5716, A, "root"),
    ("error: PAM: Authentication failure for illegal user x from 198.51.100.7", 5726, A, "x"),
    (
        "error: maximum authentication attempts exceeded for root from 198.51.100.7 port 4 ssh2 [preauth]",
        5758,
        A,
        "root",
    ),
    (
        "error: maximum authentication attempts exceeded for invalid user x from 198.51.100.7 port 4 ssh2 [preauth]",
        5758,
        A,
        "x",
    ),
    ("User root from 198.51.100.7 not allowed because not listed in AllowUsers", 5718, A, "root"),
    ("User root not allowed because account is locked", 5795, "", ""),
    ("ROOT LOGIN REFUSED FROM 198.51.100.7 port 4", 5794, A, ""),
    ("Connection closed by authenticating user root 198.51.100.7 port 4 [preauth]", 5797, A, "root"),
    ("Connection closed by invalid user  198.51.100.7 port 4 [preauth]", 5797, A, ""),
    ("Connection reset by invalid user a b 198.51.100.7 port 4 [preauth]", 5797, A, "a b"),
    ("Connection closed by 198.51.100.7 port 4 [preauth]", 5700, A, ""),
    ("Disconnected from user alice 198.51.100.7 port 4", 5700, A, "alice"),
    ("Accepted publickey for alice from 198.51.100.7 port 4 ssh2: ED25519 SHA256:abc", 5715, A, "alice"),
    ("Accepted password for alice from 198.51.100.7 port 4 ssh2", 5715, A, "alice"),
    ("Did not receive identification string from 198.51.100.7 port 4", 5706, A, ""),
    ("Did not receive identification string from 198.51.100.7", 5706, A, ""),
    ("Bad protocol version identification 'GET / HTTP/1.1' from 198.51.100.7 port 4", 5701, A, ""),
    ("banner exchange: Connection from 198.51.100.7 port 4: invalid format", 5701, A, ""),
    (
        "Unable to negotiate with 198.51.100.7 port 4: no matching cipher found. Their offer: a,b [preauth]",
        5750,
        A,
        "",
    ),
    ("Timeout before authentication for 198.51.100.7 port 4", 5704, A, ""),
    ("message repeated 3 times: [ Failed password for root from 198.51.100.7 port 4 ssh2]", 5796, A, "root"),
    ("message repeated 9 times: [ Failed password for root from 198.51.100.7 port 4 ssh2]", 5793, A, "root"),
    ("Received disconnect from 2001:db8::7 port 4:11: disconnected by user", 5700, "2001:db8::7", ""),
    ("Server listening on 0.0.0.0 port 22.", 5700, "", ""),
];

/// Messages of sshd in which the attacker at `A` makes up a name, a greeting or a reason that names `VICTIM`. The
/// third member says whether the address may be missing, where nobody can tell the two apart.
const FRAMING: &[(&str, bool)] = &[
    ("Invalid user x from 203.0.113.9 port 22 from 198.51.100.7 port 40022", false),
    ("Invalid user x from 203.0.113.9 from 198.51.100.7 port 40022", false),
    ("Invalid user root from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 40022", false),
    ("Invalid user  from 203.0.113.9 port 22 from 198.51.100.7 port 40022", false),
    ("Invalid user a rhost=203.0.113.9  from 198.51.100.7 port 40022", false),
    ("Invalid user admin 203.0.113.9 port 22 [preauth] from 198.51.100.7 port 40022", false),
    ("Invalid user x from 203.0.113.9 port 22 from 2001:db8::7 port 40022", false),
    ("Invalid user Failed password for root from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4", false),
    ("Invalid user x from 203.0.113.9 port 22 from 198.51.100.7", false),
    ("Invalid user srcip=203.0.113.9 from 198.51.100.7 port 4", false),
    ("Invalid user \"data\":{\"srcip\":\"203.0.113.9\"} from 198.51.100.7 port 4", false),
    ("Failed password for invalid user x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user x from 203.0.113.9 port 22 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user x from 203.0.113.9 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user from 203.0.113.9 from 198.51.100.7 port 4 ssh2", false),
    ("Failed password for invalid user a rhost=203.0.113.9  from 198.51.100.7 port 4 ssh2", false),
    (
        "Failed password for invalid user x from 203.0.113.9 port 1 ssh2: RSA SHA256:q from 198.51.100.7 port 4 ssh2",
        false,
    ),
    ("Failed password for x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2", false),
    ("Failed none for invalid user x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2", false),
    (
        "Failed password for invalid user for root from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4",
        false,
    ),
    (
        "Failed keyboard-interactive/pam for invalid user x from 203.0.113.9 port 9 ssh2 from 198.51.100.7 port 4 ssh2",
        false,
    ),
    (
        "Failed publickey for invalid user x from 203.0.113.9 port 1 ssh2: RSA SHA256:q from 198.51.100.7 port 4 ssh2: RSA SHA256:r",
        false,
    ),
    (
        "Failed publickey for invalid user x from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID y from 203.0.113.9 port 1 ssh2: RSA SHA256:q (serial 1) CA RSA SHA256:s",
        true,
    ),
    (
        "Failed publickey for invalid user x from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID y from 203.0.113.9 port 1 ssh2 (serial 1) CA RSA SHA256:s",
        true,
    ),
    (
        "Failed publickey for invalid user x from 203.0.113.9 port 1 ssh2: RSA-CERT SHA256:q ID z from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID y (serial 1) CA RSA SHA256:s",
        true,
    ),
    ("Connection closed by invalid user x 203.0.113.9 port 22 198.51.100.7 port 4 [preauth]", false),
    (
        "Connection closed by invalid user admin 203.0.113.9 port 22 [preauth] 198.51.100.7 port 4 [preauth]",
        false,
    ),
    ("Connection closed by authenticating user x 203.0.113.9 port 22 198.51.100.7 port 4 [preauth]", false),
    ("Connection reset by invalid user from 203.0.113.9 198.51.100.7 port 4 [preauth]", false),
    ("Disconnected from invalid user x 203.0.113.9 port 22 [preauth] 198.51.100.7 port 4 [preauth]", false),
    (
        "Disconnecting invalid user x 203.0.113.9 port 22: Too many 198.51.100.7 port 4: Too many authentication failures [preauth]",
        false,
    ),
    (
        "Disconnecting authenticating user u 198.51.100.7 port 4: Change of username or service not allowed: (u,ssh-connection) -> (x 203.0.113.9 port 5: Too many,ssh-connection) [preauth]",
        true,
    ),
    ("error: PAM: Authentication failure for illegal user x from 203.0.113.9 from 198.51.100.7", false),
    ("error: PAM: Authentication failure for illegal user x from 203.0.113.9 via from 198.51.100.7", false),
    (
        "error: PAM: User not known to the underlying authentication module for illegal user x from 203.0.113.9 from 198.51.100.7",
        false,
    ),
    (
        "error: maximum authentication attempts exceeded for invalid user x from 203.0.113.9 port 22 ssh2 from 198.51.100.7 port 4 ssh2 [preauth]",
        false,
    ),
    (
        "error: maximum authentication attempts exceeded for invalid user x from 203.0.113.9 port 22 ssh2 [preauth] from 198.51.100.7 port 4 ssh2 [preauth]",
        false,
    ),
    (
        "message repeated 2 times: [ Failed password for invalid user x from 203.0.113.9 port 1 ssh2] from 198.51.100.7 port 4 ssh2]",
        false,
    ),
    ("Bad protocol version identification 'x' from 203.0.113.9 port 22' from 198.51.100.7 port 4", false),
    ("Bad protocol version identification 'x' from 203.0.113.9' from 198.51.100.7", false),
    (
        "Received disconnect from 198.51.100.7 port 4:11: x from 203.0.113.9 port 22:11: Bye Bye [preauth]",
        false,
    ),
    ("Received disconnect from 198.51.100.7: 3: from 203.0.113.9: 3: Auth fail", false),
    (
        "Unable to negotiate with 198.51.100.7 port 4: no matching cipher found. Their offer: with 203.0.113.9 port 22: no [preauth]",
        false,
    ),
    ("refused connect from 203.0.113.9 (198.51.100.7)", false),
    (
        "User x from 203.0.113.9 not allowed because listed in DenyUsers from 198.51.100.7 not allowed because listed in DenyUsers",
        false,
    ),
];

/// Whole lines of PAM, with address and user.
const PAM: &[(&str, u32, &str, &str)] = &[
    (
        "sshd[1]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7  user=root",
        5503,
        A,
        "root",
    ),
    (
        "sshd[1]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 ",
        5503,
        A,
        "",
    ),
    (
        "sshd[1]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=2001:db8::7  user=root",
        5503,
        "2001:db8::7",
        "root",
    ),
    (
        "sshd[1]: PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7  user=root",
        2502,
        A,
        "root",
    ),
    (
        "sshd(pam_unix)[1]: authentication failure; logname= uid=0 euid=0 tty=NODEVssh ruser= rhost=198.51.100.7  user=root",
        5503,
        A,
        "root",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=bob rhost=198.51.100.7 user=bob",
        5503,
        A,
        "bob",
    ),
    (
        "su[1]: pam_unix(su:auth): authentication failure; logname=alice uid=1000 euid=0 tty=pts/1 ruser=alice rhost=  user=root",
        5503,
        "",
        "root",
    ),
    ("sshd[1]: pam_unix(sshd:auth): check pass; user unknown", 5500, "", ""),
    (
        "sshd[1]: pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)",
        5501,
        "",
        "alice",
    ),
    ("sshd[1]: pam_unix(sshd:session): session closed for user alice", 5502, "", "alice"),
    ("CRON[1]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)", 5521, "", "root"),
    ("passwd[1]: pam_unix(passwd:chauthtok): password changed for alice", 5555, "", "alice"),
    // Names that imitate what stands around them.
    (
        "sshd[1]: pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 user=x rhost=203.0.113.9",
        5503,
        A,
        "x rhost=203.0.113.9",
    ),
    (
        "sshd[1]: pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 user=x authentication failure; logname= uid=0 euid=0 tty=s ruser=b rhost=203.0.113.9",
        5503,
        A,
        "x authentication failure; logname= uid=0 euid=0 tty=s ruser=b rhost=203.0.113.9",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=a rhost=203.0.113.9 rhost=198.51.100.7",
        5503,
        A,
        "",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=a rhost=203.0.113.9 user=b rhost=198.51.100.7 user=bob",
        5503,
        A,
        "bob",
    ),
    (
        "vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser= rhost=203.0.113.9 rhost=198.51.100.7",
        5503,
        A,
        "",
    ),
    (
        "ftpd: pam_sss(ftp:auth): authentication failure; logname= uid=0 euid=0 tty=ttyS ruser=a rhost=203.0.113.9 rhost=198.51.100.7",
        5503,
        "",
        "",
    ),
];

const LOCAL: &[(&str, u32, &str)] = &[
    ("sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/apt update", 5402, "root"),
    ("sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=bob ; COMMAND=/usr/bin/id", 5407, "bob"),
    (
        "sudo:    alice : 1 incorrect password attempt ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
        5401,
        "root",
    ),
    (
        "sudo:    alice : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
        5404,
        "root",
    ),
    ("sudo:    alice : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh", 5405, "root"),
    (
        "sudo:    alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/echo x : 3 incorrect password attempts",
        5402,
        "root",
    ),
    ("su[1]: FAILED SU (to root) alice on pts/0", 5302, "root"),
    ("su[1]: FAILED su for bob by alice", 5301, "bob"),
    ("su[1]: BAD SU alice to root on /dev/ttyp0", 5302, "root"),
    ("su[1]: - /dev/pts/1 alice:root", 5302, "root"),
    ("su[1]: (to root) alice on pts/0", 5303, "root"),
    ("su[1]: Successful su for bob by alice", 5304, "bob"),
    ("su[1]: + /dev/pts/1 alice:root", 5303, "root"),
];

#[test]
fn every_message_of_sshd_gives_its_rule_address_and_user_under_every_header() {
    for (message, rule, address, user) in SSHD {
        for header in headers() {
            let seen = judge(&format!("{header}{message}"));
            assert_eq!((seen.rule, seen.srcip.as_str()), (*rule, *address), "{header}{message}");
            let named = if seen.dstuser.is_empty() { &seen.srcuser } else { &seen.dstuser };
            assert_eq!(named, user, "{header}{message}");
            assert!(!seen.contested, "{message}");
        }
    }
}

#[test]
fn no_name_makes_sshd_accuse_somebody_else() {
    assert!(FRAMING.len() >= 40);
    for (message, may_be_missing) in FRAMING {
        for header in headers() {
            let seen = judge(&format!("{header}{message}"));
            assert_ne!(seen.srcip, VICTIM, "{message}");
            let right = seen.srcip == A || seen.srcip == "2001:db8::7";
            assert!(right || (*may_be_missing && seen.srcip.is_empty()), "{message}: {seen:?}");
        }
    }
}

/// Lines with a place `@` for a stranger's text. The address in each is `A`; it must be found where the second member
/// says so, and `VICTIM` never.
const TEMPLATES: &[(&str, bool)] = &[
    ("Nov 11 08:04:51 h sshd[1]: Invalid user @ from 198.51.100.7 port 40022", true),
    ("Nov 11 08:04:51 h sshd[1]: Failed password for invalid user @ from 198.51.100.7 port 40022 ssh2", true),
    ("Nov 11 08:04:51 h sshd[1]: Failed none for invalid user @ from 198.51.100.7 port 40022 ssh2", true),
    (
        "Nov 11 08:04:51 h sshd[1]: Failed publickey for invalid user @ from 198.51.100.7 port 4 ssh2: RSA SHA256:r",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Failed publickey for invalid user u from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID @ (serial 1) CA RSA SHA256:s",
        false,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Failed publickey for invalid user @ from 198.51.100.7 port 4 ssh2: RSA-CERT SHA256:r ID k (serial 1) CA RSA SHA256:s",
        false,
    ),
    ("Nov 11 08:04:51 h sshd[1]: Connection closed by invalid user @ 198.51.100.7 port 4 [preauth]", true),
    (
        "Nov 11 08:04:51 h sshd[1]: Connection reset by authenticating user @ 198.51.100.7 port 4 [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Disconnecting invalid user @ 198.51.100.7 port 4: Too many authentication failures [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: Disconnecting authenticating user u 198.51.100.7 port 4: Change of username or service not allowed: (u,ssh-connection) -> (@,ssh-connection) [preauth]",
        false,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: error: PAM: Authentication failure for illegal user @ from 198.51.100.7",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: error: maximum authentication attempts exceeded for invalid user @ from 198.51.100.7 port 4 ssh2 [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: message repeated 2 times: [ Failed password for invalid user @ from 198.51.100.7 port 4 ssh2]",
        true,
    ),
    ("Nov 11 08:04:51 h sshd[1]: Bad protocol version identification '@' from 198.51.100.7 port 4", true),
    ("Nov 11 08:04:51 h sshd[1]: Received disconnect from 198.51.100.7 port 4:11: @ [preauth]", true),
    (
        "Nov 11 08:04:51 h sshd[1]: Unable to negotiate with 198.51.100.7 port 4: no matching cipher found. Their offer: @ [preauth]",
        true,
    ),
    (
        "Nov 11 08:04:51 h sshd[1]: pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7 user=@",
        true,
    ),
    (
        "Nov 11 08:04:51 h vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=@ rhost=198.51.100.7",
        false,
    ),
    ("Nov 11 08:04:51 h vsftpd[1]: [@] FAIL LOGIN: Client \"198.51.100.7\"", true),
    (
        "Nov 11 08:04:51 h proftpd[1]: h (h[198.51.100.7]): USER @: no such user found from h [198.51.100.7] to 192.0.2.1:21",
        true,
    ),
    ("Nov 11 08:04:51 h dropbear[1]: Bad password attempt for '@' from 198.51.100.7:60588", true),
    (
        "Nov 11 08:04:51 h dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<@>, method=PLAIN, rip=198.51.100.7, lip=192.0.2.1, session=<a>",
        true,
    ),
    ("Nov 11 08:04:51 h dovecot: auth: sql(@,198.51.100.7,<s>): unknown user", true),
    (
        "Nov 11 08:04:51 h postfix/smtpd[1]: NOQUEUE: reject: RCPT from unknown[198.51.100.7]: 554 5.7.1 <@>: Relay access denied; from=<@> to=<@> proto=ESMTP helo=<@>",
        true,
    ),
    (
        "Nov 11 08:04:51 h sendmail[1]: s1P: ruleset=check_rcpt, arg1=<@>, relay=[198.51.100.7], reject=550 5.7.1 <@>... Relaying denied",
        false,
    ),
    (
        "2013-01-04 17:03:46 login authenticator failed for (u) [198.51.100.7]: 535 Incorrect authentication data (set_id=@)",
        true,
    ),
    (
        "2013-01-04 17:03:46 SMTP protocol error in \"@\" H=(u) [198.51.100.7]:1 I=[192.0.2.1]:587 AUTH command used when not advertised",
        false,
    ),
    (
        "2019-10-07 06:09:42 5907 [Warning] Access denied for user '@'@'198.51.100.7' (using password: YES)",
        true,
    ),
    (
        "2014/04/03 22:20:38 [error] 30708#0: *3 user \"@\": password mismatch, client: 198.51.100.7, server: s, request: \"GET /@ HTTP/1.1\", host: \"h\"",
        false,
    ),
    (
        "2014/04/03 22:20:38 [error] 30708#0: *3 open() \"/www/@\" failed (2: No such file or directory), client: 198.51.100.7, server: s, request: \"GET / HTTP/1.1\", host: \"h\", referrer: \"@\"",
        false,
    ),
    (
        "[Wed Jul 17 22:18:52 2013] [error] [client 198.51.100.7] user @: authentication failure for \"/@\": Password Mismatch",
        true,
    ),
    ("198.51.100.7 - @ [20/Jan/2015:19:53:28 +0100] \"GET /@ HTTP/1.1\" 404 47 \"@\" \"@\"", false),
    (
        "[2012-02-13 17:18:22] NOTICE[1638] chan_sip.c: Registration from '@' failed for '198.51.100.7' - No matching peer found",
        true,
    ),
];

/// What strangers build their names of.
const FRAGMENTS: &[&str] = &[
    "x",
    " ",
    "",
    "203.0.113.9",
    " from 203.0.113.9",
    " from 203.0.113.9 port 22",
    " ssh2",
    " port 5",
    ": RSA SHA256:q",
    ": RSA-CERT SHA256:q",
    " ID y",
    " (serial 1) CA RSA SHA256:s",
    " [preauth]",
    " 203.0.113.9 port 22",
    ": Too many",
    " rhost=203.0.113.9",
    " user=b",
    " via ",
    "invalid user ",
    "]",
    "[203.0.113.9]",
    "(203.0.113.9)",
    "'",
    "\"",
    ">",
    "<",
    "Failed password for ",
    ": ",
    ", client: 203.0.113.9, server: s",
    ", rip=203.0.113.9,",
    ",203.0.113.9,<s>): unknown user",
    "'@'203.0.113.9' (using password: YES)",
    "] FAIL LOGIN: Client \"203.0.113.9\"",
    ", relay=[203.0.113.9], reject=",
    "' failed for '203.0.113.9' - No matching peer found",
    " H=(u) [203.0.113.9]",
    " [203.0.113.9]: 535 ",
    ", request: \"GET / HTTP/1.1\"",
    " authentication failure; logname= uid=0 euid=0 tty=s ruser=b rhost=203.0.113.9",
    ",",
    " from 203.0.113.9:22",
    "' from 203.0.113.9 port 2",
    ": 11: from 203.0.113.9 port 22:11: x",
    "[client 203.0.113.9] ",
    " - - [20/Jan/2015:19:53:28 +0100] \"GET / HTTP/1.1\" 404 1 ",
];

#[test]
fn no_name_made_of_dangerous_words_accuses_somebody_else() {
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut analyzer = analyzer(Mode::Logtest);
    let mut wrong = BTreeMap::new();
    for _ in 0..400 {
        for (template, must_be_found) in TEMPLATES {
            let mut line = String::new();
            for part in template.split_inclusive('@') {
                let Some(fixed) = part.strip_suffix('@') else {
                    line.push_str(part);
                    continue;
                };
                line.push_str(fixed);
                // The one place where "@" is the server's own.
                if fixed == "'" {
                    line.push('@');
                    continue;
                }
                (0..=next(5)).for_each(|_| line.push_str(FRAGMENTS[next(FRAGMENTS.len())]));
            }
            let event = Event::local("/var/log/auth.log", line.as_str(), Timestamp::from_secs(NOON));
            let verdict = analyzer.analyze(&event);
            let address = verdict.decoded.field(StaticField::SrcIp).unwrap_or_default();
            let right = address == A.as_bytes() || (address.is_empty() && !must_be_found);
            if !right {
                wrong
                    .entry(*template)
                    .or_insert_with(|| (String::from_utf8_lossy(address).into_owned(), line.clone()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pam_lines_give_the_address_that_the_program_set() {
    for (line, rule, address, user) in PAM {
        let seen = judge(&format!("Nov 11 08:04:51 web01 {line}"));
        assert_eq!(
            (seen.rule, seen.srcip.as_str(), seen.dstuser.as_str()),
            (*rule, *address, *user),
            "{line}"
        );
    }
}

#[test]
fn sudo_and_su_tell_who_became_whom() {
    for (line, rule, user) in LOCAL {
        let seen = judge(&format!("Nov 11 08:04:51 web01 {line}"));
        assert_eq!((seen.rule, seen.dstuser.as_str()), (*rule, *user), "{line}");
    }
}

fn response(program: &str, command: &str, data: &str) -> String {
    format!(
        "2026/03/02 10:15:31 active-response/bin/{program}: {{\"version\":1,\"origin\":{{\"name\":\"node01\",\"module\":\
         \"wazuh-execd\"}},\"command\":\"{command}\",\"parameters\":{{\"extra_args\":[],\"alert\":{{\"full_log\":\
         \"Invalid user \\\"data\\\":{{\\\"srcip\\\":\\\"{VICTIM}\\\" from {A} port 4\",\"data\":{data}}},\
         \"program\":\"active-response/bin/{program}\"}}}}"
    )
}

#[test]
fn the_log_of_our_responses_is_told_and_answers_itself_never() {
    let data = format!("{{\"srcip\":\"{A}\",\"dstuser\":\"bob\"}}");
    for (program, command, rule) in [
        ("firewall-drop", "add", 651),
        ("firewall-drop", "delete", 652),
        ("host-deny", "add", 653),
        ("host-deny", "delete", 654),
        ("route-null", "add", 655),
        ("route-null", "delete", 656),
        ("own-script", "add", 657),
        ("own-script", "delete", 657),
        ("firewall-drop", "continue", 650),
        ("firewall-drop", "abort", 650),
    ] {
        let line = response(program, command, &data);
        let seen = judge(&line);
        assert_eq!((seen.rule, seen.srcip.as_str()), (rule, A), "{line}");
        let mut analyzer = analyzer(Mode::Daemon);
        let event = Event::local("/var/ossec/logs/active-responses.log", line, Timestamp::from_secs(NOON));
        let alert = analyzer.analyze(&event).alert;
        assert!(alert.is_none_or(|alert| alert.no_response), "{program} {command}");
    }
    for text in ["Starting", "Ended", "Aborted", "Cannot read 'srcip' from data"] {
        let seen = judge(&format!("2026/03/02 10:15:31 active-response/bin/firewall-drop: {text}"));
        assert_eq!((seen.level, seen.srcip.as_str()), (0, ""));
    }
}

fn feed(analyzer: &mut Analyzer, second: i64, line: &str) -> (u32, String) {
    let event = Event::local("/var/log/auth.log", line, Timestamp::from_secs(second));
    let verdict = analyzer.analyze(&event);
    let address = verdict.decoded.field(StaticField::SrcIp).unwrap_or_default();
    let rule = verdict.rule.as_ref().map_or(0, |rule| rule.id.to_string().parse().unwrap());
    (rule, String::from_utf8_lossy(address).into_owned())
}

const ANSWERED: [u32; 4] = [5712, 5720, 5763, 5551];

#[test]
fn one_attacker_does_not_hide_another() {
    let mut analyzer = analyzer(Mode::Daemon);
    let mut answered = BTreeMap::<String, usize>::new();
    for attempt in 0..20 {
        for host in 1..=5 {
            let line = format!(
                "Nov 11 08:04:51 web01 sshd[1]: Failed password for root from 198.51.100.{host} port 4 ssh2"
            );
            let (rule, address) = feed(&mut analyzer, NOON + attempt, &line);
            if ANSWERED.contains(&rule) {
                *answered.entry(address).or_default() += 1;
            }
        }
    }
    assert_eq!(answered.len(), 5, "{answered:?}");
    assert!(answered.values().all(|times| *times == 2), "{answered:?}");
}

#[test]
fn a_mix_of_names_is_counted_together_without_help_of_pam() {
    for known in 0..=10 {
        let mut analyzer = analyzer(Mode::Daemon);
        let mut hit = false;
        for attempt in 0..10 {
            let header = "Nov 11 08:04:51 web01 sshd[1]:";
            let mut lines = vec![format!("{header} Failed password for root from {A} port 4 ssh2")];
            if attempt >= known {
                lines = vec![
                    format!("{header} Invalid user x from {A} port 4"),
                    format!("{header} Failed password for invalid user x from {A} port 4 ssh2"),
                ];
            }
            for line in lines {
                hit |= ANSWERED.contains(&feed(&mut analyzer, NOON + attempt * 6, &line).0);
            }
        }
        assert!(hit, "{known} attempts with a known name");
    }
}

#[test]
fn three_wrong_passwords_and_a_login_are_nobodys_attack() {
    let mut analyzer = analyzer(Mode::Daemon);
    let header = "Nov 11 08:04:51 web01 sshd[1]:";
    let failure =
        "authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.7  user=alice";
    for line in [
        format!("{header} pam_unix(sshd:auth): {failure}"),
        format!("{header} Failed password for alice from {A} port 4 ssh2"),
        format!("{header} Failed password for alice from {A} port 4 ssh2"),
        format!("{header} Failed password for alice from {A} port 4 ssh2"),
        format!("{header} Connection closed by authenticating user alice {A} port 4 [preauth]"),
        format!("{header} PAM 2 more {}", failure.replace("failure;", "failures;")),
        format!("{header} Accepted password for alice from {A} port 5 ssh2"),
    ] {
        let (rule, _) = feed(&mut analyzer, NOON, &line);
        assert!(rule != 5700 && rule != 5500, "{line} is unknown");
        assert!(!ANSWERED.contains(&rule) && rule != 5798, "{line}");
    }
}

/// Runs the shared generator and feeds its log, each line at its own time.
fn against_the_truth(arguments: &[&str]) {
    let Some(generator) = shared("bench/gen_authlog.py") else { return };
    let directory = tempdir();
    let (log, truth) = (directory.join("log"), directory.join("truth"));
    let end = NOON + 3600;
    let made = Command::new("python3")
        .arg(generator)
        .args(["--end", &end.to_string(), "--out"])
        .arg(&log)
        .arg("--truth")
        .arg(&truth)
        .args(arguments)
        .env("TZ", "UTC")
        .output();
    let Ok(made) = made else {
        println!("skipped: no python3");
        return;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let truth: Value = serde_json::from_slice(&std::fs::read(&truth).unwrap()).unwrap();
    let log = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();

    let midnight = end - end.rem_euclid(86_400);
    let mut analyzer = analyzer(Mode::Daemon);
    let (mut answered, mut severe) = (BTreeSet::new(), BTreeSet::new());
    let mut last = 0;
    for line in log.lines() {
        let clock = if line.starts_with('2') { &line[11..19] } else { &line[7..15] };
        let mut parts = clock.split(':').map(|part| part.parse::<i64>().unwrap());
        let of_day = parts.by_ref().fold(0, |sum, part| sum * 60 + part);
        let mut second = midnight + of_day;
        if second > end {
            second -= 86_400;
        }
        assert!(second >= last, "the log goes on in time: {line}");
        last = second;
        let event = Event::local("/var/log/auth.log", line, Timestamp::from_secs(second));
        let verdict = analyzer.analyze(&event);
        let Some(alert) = verdict.alert else { continue };
        let Some(address) = alert.srcip else { continue };
        let address = String::from_utf8(address).unwrap();
        assert!(alert.contested.is_empty() || alert.rule.level < 10, "{line}");
        if ANSWERED.contains(&alert.rule.id.to_string().parse().unwrap()) {
            answered.insert(address.clone());
        }
        if alert.rule.level >= 10 {
            severe.insert(address);
        }
    }
    let hosts = |value: &Value| -> BTreeSet<String> {
        match value {
            Value::Object(map) => map.keys().cloned().collect(),
            Value::Array(list) => list.iter().map(|host| host.as_str().unwrap().to_owned()).collect(),
            _ => BTreeSet::new(),
        }
    };
    let must = hosts(&truth["must_ban"]);
    let missed: Vec<_> = must.difference(&answered).collect();
    assert!(missed.is_empty(), "{} of {} missed: {missed:?}", missed.len(), must.len());
    for set in ["must_not", "injected_victims"] {
        let wrong: Vec<_> = hosts(&truth[set]).intersection(&severe).cloned().collect();
        assert!(wrong.is_empty(), "{set}: {wrong:?}");
    }
    println!("{arguments:?}: {} answered, {} had to be", answered.len(), must.len());
}

fn tempdir() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tld-shipped-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn thirty_attackers_are_answered_and_nobody_else() {
    against_the_truth(&[
        "--lines",
        "20000",
        "--attackers",
        "30",
        "--slow",
        "20",
        "--edge",
        "20",
        "--inject",
        "40",
    ]);
}

#[test]
fn thirty_attackers_are_answered_in_the_new_format() {
    let new = ["--format", "iso", "--ssh-program", "sshd-session", "--seed", "7"];
    let size = ["--lines", "20000", "--attackers", "30", "--slow", "20", "--edge", "20", "--inject", "40"];
    against_the_truth(&[&new[..], &size[..]].concat());
}

#[test]
fn a_thousand_attackers_at_once_are_answered() {
    let shape = ["--shape", "simultaneous", "--light", "2000", "--slow", "50", "--edge", "50"];
    against_the_truth(&[&["--lines", "60000", "--attackers", "1000"][..], &shape[..]].concat());
}

#[test]
fn a_thousand_attackers_at_once_are_answered_in_the_new_format() {
    let new = ["--format", "iso", "--ssh-program", "sshd-session", "--seed", "3"];
    let size = ["--lines", "60000", "--attackers", "1000", "--slow", "50", "--edge", "50"];
    against_the_truth(&[&new[..], &size[..]].concat());
}

#[test]
fn collected_log_lines_are_covered_service_by_service() {
    let Some(path) = shared("conformance/attack-logs/open.jsonl") else { return };
    // service -> attacks found, attacks, silent when nothing happened, such lines
    let mut services = BTreeMap::<String, [u32; 4]>::new();
    let mut strangers = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let (service, log) = (case["service"].as_str().unwrap(), case["log"].as_str().unwrap());
        let seen = judge(log);
        let counts = services.entry(service.to_owned()).or_default();
        if case["match"].as_bool().unwrap() {
            counts[1] += 1;
            let host = case["host"].as_str().unwrap_or_default();
            let bare = seen.srcip.strip_prefix("::ffff:").unwrap_or(&seen.srcip);
            if seen.level >= 5 && bare == host {
                counts[0] += 1;
            } else if seen.level >= 5 && !seen.srcip.is_empty() {
                strangers.push(format!("{service} {}: {} instead of {host}", case["n"], seen.srcip));
            } else if std::env::var_os("TLD_VERBOSE").is_some() {
                println!("missed {service} {}: {} {log}", case["n"], seen.rule);
            }
        } else {
            counts[3] += 1;
            counts[2] += u32::from(seen.level < 5);
            if seen.level >= 5 && std::env::var_os("TLD_VERBOSE").is_some() {
                println!("loud {service} {}: {} {log}", case["n"], seen.rule);
            }
        }
    }
    let mut sum = [0; 4];
    for (service, counts) in &services {
        println!("{service}: {}/{} found, {}/{} silent", counts[0], counts[1], counts[2], counts[3]);
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    println!("all: {}/{} found, {}/{} silent; {strangers:#?}", sum[0], sum[1], sum[2], sum[3]);
    let sshd = services.get("sshd").copied().unwrap_or_default();
    assert!(sshd[0] >= 36 && sshd[2] >= 24, "sshd: {sshd:?}");
}
