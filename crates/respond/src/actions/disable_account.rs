//! `disable-account`: the password of an account is locked, and what was found before is remembered, so that an account
//! that an administrator had locked is never unlocked, and one that somebody changed since we locked it is left as it is.
//! With the extra argument `expire` the account expires too, which also stops logins by key; with `sessions` its live
//! sessions are ended.
//! Invariant: no password hash ever appears in an argument or in the journal.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tld_sys::durable;

use super::{Call, Failure, Local, Proof, Subject, Takes, logins, tool};

/// See the module.
pub(crate) struct DisableAccount;

/// What a revert restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    locked: bool,
    /// It had an empty password.
    open: bool,
    /// Day of expiry as in the file, empty for none.
    expire: String,
    /// Half of a digest of the field that the lock makes: enough to see that it is still ours, too little to find a
    /// password by.
    #[serde(default)]
    ours: Option<String>,
}

/// What the system's file says of an account.
struct Entry {
    password: String,
    expire: String,
}

impl Entry {
    fn is_locked(&self) -> bool {
        // An asterisk is no hash of anything: such accounts never had a password to unlock.
        self.password.starts_with(['!', '*'])
    }

    fn digest(field: &str) -> String {
        Sha256::digest(field).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn before(&self) -> Account {
        Account {
            locked: self.is_locked(),
            open: self.password.is_empty(),
            expire: self.expire.clone(),
            ours: (!self.is_locked()).then(|| Self::digest(&format!("!{}", self.password))),
        }
    }
}

fn name(subject: &Subject) -> Result<&str, Failure> {
    match subject {
        Subject::User(user) => Ok(user),
        _ => Err(Failure::Failed("no account".into())),
    }
}

fn fields(call: &Call, file: &str, user: &str) -> Result<Vec<String>, Failure> {
    let path = call.places.accounts.join(file);
    let bytes = durable::read_bounded(&path, MOST_BYTES).map_err(Failure::io("read", &path))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| line.split(':').next() == Some(user));
    let line =
        line.ok_or_else(|| Failure::Failed(format!("there is no account `{user}` in `{}`", path.display())))?;
    Ok(line.split(':').map(str::to_owned).collect())
}

fn account(call: &Call, user: &str) -> Result<Entry, Failure> {
    let fields = fields(call, "etc/shadow", user)?;
    let field = |n: usize| fields.get(n).cloned().unwrap_or_default();
    Ok(Entry { password: field(1), expire: field(7) })
}

fn expires(call: &Call) -> bool {
    is_asked(call, "expire")
}

/// Whether a word stands among the extra arguments, which some hand over as one text.
fn is_asked(call: &Call, word: &str) -> bool {
    call.extra_args.iter().flat_map(|argument| argument.split_whitespace()).any(|one| one == word)
}

fn usermod(call: &Call, args: &[&str], user: &str) -> Result<(), Failure> {
    let program = call.tool("usermod")?;
    let mut all: Vec<OsString> = Vec::new();
    if call.places.accounts != std::path::Path::new("/") {
        all.extend(["--prefix".into(), call.places.accounts.clone().into_os_string()]);
    }
    all.extend(args.iter().map(OsString::from));
    all.extend(["--".into(), user.into()]);
    tool::must(&program, all, b"").map(drop)
}

/// Ends what the session service knows, and then whatever of a login still lives.
fn end_sessions(call: &Call, user: &str) -> String {
    let number = fields(call, "etc/passwd", user).ok().and_then(|fields| fields.get(2)?.parse::<u32>().ok());
    let Some(number) = number else {
        return ", its sessions were not looked for, since its number is not known".into();
    };
    if number == 0 {
        return ", its sessions are root's and go on".into();
    }
    if let Ok(tool) = call.tool("loginctl") {
        // Where no such service runs this fails, and a user without a session is an error too.
        let _ = tool::run(&tool, ["terminate-user", "--", user], b"");
    }
    match logins::end(number) {
        (0, 0) => ", no session of it is left".into(),
        (ended, 0) => format!(", its sessions were ended ({ended} processes)"),
        (_, left) => format!(", {left} processes of its sessions could not be ended"),
    }
}

impl Local for DisableAccount {
    fn names(&self) -> &'static [&'static str] {
        &["disable-account"]
    }

    fn takes(&self) -> Option<Takes> {
        Some(Takes::Account)
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        let user = call.text("data/dstuser").filter(|user| is_fit(user));
        user.map(|user| Subject::User(user.into())).ok_or_else(|| NO_USER.into())
    }

    fn prior(&self, call: &Call, subject: &Subject) -> Result<String, Failure> {
        let account = account(call, name(subject)?)?;
        serde_json::to_string(&account.before()).map_err(|error| Failure::Failed(error.to_string()))
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let user = name(subject)?;
        if !account(call, user)?.is_locked() {
            usermod(call, &["--lock"], user)?;
        }
        if expires(call) && account(call, user)?.expire != EXPIRED {
            usermod(call, &["--expiredate", EXPIRED_DATE], user)?;
        }
        if !self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("`{user}` is not locked although usermod succeeded")));
        }
        let ended = if is_asked(call, "sessions") { end_sessions(call, user) } else { String::new() };
        let expired = if expires(call) { " and expired" } else { "" };
        Ok(format!("`{user}` is locked{expired} in etc/shadow{ended}"))
    }

    fn revert(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        let user = name(subject)?;
        let Ok(before) = serde_json::from_str::<Account>(prior) else {
            return Ok(format!("nothing was done to `{user}`"));
        };
        let now = account(call, user)?;
        let changed = before.ours.as_ref().is_some_and(|ours| *ours != Entry::digest(&now.password));
        let mut left = Vec::new();
        if now.is_locked() && !before.locked {
            if changed {
                left.push(format!(
                    "somebody changed the password field of `{user}` while it was locked: left locked"
                ));
            } else {
                // Unlocking to an empty password must be asked for in another way.
                usermod(call, if before.open { &["--password", ""] } else { &["--unlock"] }, user)?;
            }
        }
        if expires(call) && before.expire != EXPIRED {
            if now.expire == EXPIRED {
                usermod(call, &["--expiredate", &before.expire], user)?;
            } else if now.expire != before.expire {
                left.push(format!("somebody changed when `{user}` expires: left as it is"));
            }
        }
        let now = account(call, user)?;
        if now.is_locked() && !before.locked && !changed {
            return Err(Failure::Failed(format!("`{user}` is still locked")));
        }
        Ok(if !left.is_empty() {
            left.join("; ")
        } else if before.locked {
            format!("`{user}` was locked before and stays so")
        } else {
            format!("`{user}` is no longer locked in etc/shadow")
        })
    }

    fn verify(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let account = account(call, name(subject)?)?;
        Ok(account.is_locked() && (!expires(call) || account.expire == EXPIRED))
    }
}

/// The contract's rules for a name (active-response 8).
pub(crate) fn is_fit(user: &str) -> bool {
    let forbidden = [':', ',', ' ', '\t', '\r', '\n', '/', '\\'];
    !user.is_empty()
        && user != "root"
        && user.len() <= 256
        && !user.starts_with(['-', '+', '~'])
        && !user.contains(forbidden)
        && !user.contains("..")
}

pub(crate) const NO_USER: &str = "Cannot read 'dstuser' from data or invalid username format";
const MOST_BYTES: usize = 64 << 20;
/// The second day of the epoch: some programs take day 0 for never.
const EXPIRED: &str = "1";
const EXPIRED_DATE: &str = "1970-01-02";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_contracts_rules() {
        for good in [
            "bob",
            "0day",
            "a$",
            "a.b",
            "BOB",
            "testuser",
            "user123",
            "1testuser",
            "_testuser",
            "test_user",
            "test-user",
            "machine$",
            "test$user",
            "TestUser",
            "TESTUSER",
            "test.user",
        ] {
            assert!(is_fit(good), "{good}");
        }
        assert!(is_fit(&"x".repeat(256)) && !is_fit(&"x".repeat(257)));
        for bad in [
            "", "root", "-x", "+x", "~x", "a:b", "a,b", "a b", "a\tb", "a\rb", "a/b", "a\\b", "a..b", "a\nb",
            "../root",
        ] {
            assert!(!is_fit(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_is_no_name() {
        for data in [r#"{"dstuser":null}"#, r#"{"dstuser":7}"#, r#"{"dstuser":["bob"]}"#, "{}", "null"] {
            let call = Call {
                home: "/nowhere".into(),
                places: super::super::Places::default(),
                name: "disable-account".into(),
                alert: serde_json::from_str(&format!(r#"{{"data":{data}}}"#)).unwrap(),
                extra_args: vec![],
                created: tld_model::Timestamp::from_secs(0),
            };
            assert_eq!(DisableAccount.subject(&call), Err(NO_USER.into()), "{data}");
        }
    }
}
