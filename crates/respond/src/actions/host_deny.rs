//! `host-deny`: a line `ALL:<address>` in the list that tcp-wrapped services obey. Lines are compared as whole tokens,
//! so that 10.0.0.1 is not 10.0.0.12; the file keeps owner, mode and label and is never seen half written.
//! Invariant: only lines of exactly our form are added or removed, and one that was there before stays.

use std::net::IpAddr;

use tld_sys::durable::{self, FileLock};

use super::{Call, Failure, Local, Proof, Subject};

/// See the module.
pub(crate) struct HostDeny;

fn token(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Whether a line denies exactly this address everything.
fn denies(line: &str, address: IpAddr) -> bool {
    let line = line.trim();
    let Some((daemons, client)) = line.split_once(':') else { return false };
    let client = client.trim();
    let bare = client.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(client);
    daemons.trim() == "ALL" && bare.parse() == Ok(address)
}

fn address(subject: &Subject) -> Result<IpAddr, Failure> {
    subject.address().ok_or_else(|| Failure::Failed("no address".into()))
}

fn lock(call: &Call) -> Result<FileLock, Failure> {
    let path = call.state().join("host-deny.lock");
    durable::create_dirs(&call.state(), 0o750).map_err(Failure::io("create", &call.state()))?;
    durable::lock_exclusive(&path).map_err(Failure::io("lock", &path))
}

fn read(call: &Call) -> Result<Option<String>, Failure> {
    let path = &call.places.hosts_deny;
    match durable::read_bounded(path, MOST_BYTES) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| Failure::Failed(format!("`{}` is no text: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io("read", path)(error)),
    }
}

fn write(call: &Call, text: &str) -> Result<(), Failure> {
    let path = &call.places.hosts_deny;
    durable::replace_keeping(path, text.as_bytes()).map_err(Failure::io("write", path))
}

impl Local for HostDeny {
    fn names(&self) -> &'static [&'static str] {
        &["host-deny"]
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        call.address()
    }

    fn prior(&self, call: &Call, subject: &Subject) -> Result<String, Failure> {
        let address = address(subject)?;
        Ok(match read(call)? {
            None => "no-file",
            Some(text) if text.lines().any(|line| denies(line, address)) => "present",
            Some(_) => "absent",
        }
        .into())
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let address = address(subject)?;
        let _lock = lock(call)?;
        let mut text = read(call)?.unwrap_or_default();
        let path = call.places.hosts_deny.display();
        let line = format!("ALL:{}", token(address));
        if !text.lines().any(|line| denies(line, address)) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&line);
            text.push('\n');
            write(call, &text)?;
        }
        if !self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("`{path}` lacks `{line}` although it was written")));
        }
        Ok(format!("`{path}` has `{line}`"))
    }

    fn revert(&self, call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        let address = address(subject)?;
        let path = &call.places.hosts_deny;
        if prior == "present" {
            return Ok(format!("`{}` had {address} before and keeps it", path.display()));
        }
        let _lock = lock(call)?;
        let text = read(call)?.unwrap_or_default();
        let kept: String = text.split_inclusive('\n').filter(|line| !denies(line, address)).collect();
        if kept.is_empty() && prior == "no-file" && path.exists() {
            std::fs::remove_file(path).map_err(Failure::io("remove", path))?;
        } else if kept != text {
            write(call, &kept)?;
        }
        if self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("`{}` still has {address}", path.display())));
        }
        Ok(format!("`{}` has {address} no more", path.display()))
    }

    fn verify(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let address = address(subject)?;
        Ok(read(call)?.is_some_and(|text| text.lines().any(|line| denies(line, address))))
    }
}

const MOST_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        let is = |line: &str, text: &str| denies(line, text.parse().unwrap());
        assert!(is("ALL:10.0.0.1", "10.0.0.1") && is(" ALL : 10.0.0.1 ", "10.0.0.1"));
        assert!(!is("ALL:10.0.0.12", "10.0.0.1") && !is("ALL:110.0.0.1", "10.0.0.1"));
        assert!(!is("sshd:10.0.0.1", "10.0.0.1") && !is("#ALL:10.0.0.1", "10.0.0.1"));
        assert!(is("ALL:[2001:db8::7]", "2001:db8::7") && is("ALL:[2001:DB8:0::7]", "2001:db8::7"));
        assert!(!is("ALL:[2001:db8::70]", "2001:db8::7") && !is("", "10.0.0.1"));
    }
}
