//! `host-deny`: a line `ALL:<address>` in the list that tcp-wrapped services obey. Lines are compared as whole tokens,
//! so that 10.0.0.1 is not 10.0.0.12; the file keeps owner, mode and label and is never seen half written.
//! Invariant: only lines of exactly our form are added or removed, and one that was there before stays.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use tld_sys::durable::{self, FileLock};

use super::{Call, Failure, Local, Proof, Subject, Takes};
use crate::together::Places;

/// See the module.
pub(crate) struct HostDeny;

fn token(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The address that a line denies everything, if it is a line of our form.
fn denied(line: &str) -> Option<IpAddr> {
    let (daemons, client) = line.trim().split_once(':')?;
    let client = client.trim();
    let bare = client.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(client);
    if daemons.trim() == "ALL" { bare.parse().ok() } else { None }
}

/// The lines with their ends, and whether each is only a piece of the line before it, which ended with a backslash:
/// services read such a piece as more clients of that line, whatever it looks like.
fn lines(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut goes_on = false;
    text.split_inclusive('\n').map(move |line| {
        let piece = goes_on;
        goes_on = line.ends_with(CONTINUED);
        (line, piece)
    })
}

/// What one order wants of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Present(IpAddr),
    /// The list did not exist before, and is to go with its last line.
    Absent(IpAddr, bool),
    Look(IpAddr),
}

impl Wish {
    const fn address(self) -> IpAddr {
        match self {
            Self::Present(address) | Self::Absent(address, _) | Self::Look(address) => address,
        }
    }
}

/// Whether the list has the address by the end of the round, and whether there is a list at all.
type Found = Result<(bool, bool), Failure>;

static LISTS: Places<PathBuf, Wish, Found> = Places::new();

/// All orders that wait share one rewrite, and what is answered was read back from the disk after it.
fn carry_out(call: &Call, wish: Wish) -> Found {
    let list = LISTS.at(call.places.hosts_deny.clone());
    let answer = list.ask(wish, |wishes| {
        let read = change(call, wishes);
        let answer = |wish: &Wish| {
            let (denied, exists) = read.as_ref().map_err(Clone::clone)?;
            Ok((denied.contains(&wish.address()), *exists))
        };
        wishes.iter().map(answer).collect()
    });
    answer.unwrap_or_else(|| Err(Failure::Failed("the list of denied hosts was not worked on".into())))
}

fn addresses(text: Option<&str>) -> HashSet<IpAddr> {
    let whole = text.into_iter().flat_map(lines).filter(|(_, piece)| !piece);
    whole.filter_map(|(line, _)| denied(line)).collect()
}

fn change(call: &Call, wishes: &[Wish]) -> Result<(HashSet<IpAddr>, bool), Failure> {
    if wishes.iter().all(|wish| matches!(wish, Wish::Look(_))) {
        let text = read(call)?;
        return Ok((addresses(text.as_deref()), text.is_some()));
    }
    let _lock = lock(call)?;
    for _ in 0..TRIES {
        if let Some(after) = rewrite(call, wishes)? {
            return Ok(after);
        }
    }
    let path = call.places.hosts_deny.display();
    Err(Failure::Failed(format!("somebody else changes `{path}` all the time")))
}

/// One try; none when somebody else changed the list meanwhile, whose change must not be lost.
fn rewrite(call: &Call, wishes: &[Wish]) -> Result<Option<(HashSet<IpAddr>, bool)>, Failure> {
    let before = read(call)?;
    let present = addresses(before.as_deref());
    let gone: HashSet<IpAddr> = wishes
        .iter()
        .filter_map(|wish| if let Wish::Absent(address, _) = wish { Some(*address) } else { None })
        .filter(|address| present.contains(address))
        .collect();
    let mut text = before.clone().unwrap_or_default();
    if !gone.is_empty() {
        let stays = |line: &str| denied(line).is_none_or(|address| !gone.contains(&address));
        text = lines(&text).filter(|(line, piece)| *piece || stays(line)).map(|(line, _)| line).collect();
    }
    let mut added = HashSet::new();
    for wish in wishes {
        let Wish::Present(address) = wish else { continue };
        let there = present.contains(address) && !gone.contains(address);
        if there || !added.insert(*address) {
            continue;
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if text.ends_with(CONTINUED) {
            // An empty line is where that line ends.
            text.push('\n');
        }
        text.push_str(&format!("ALL:{}\n", token(*address)));
    }
    let path = &call.places.hosts_deny;
    let ours = wishes.iter().any(|wish| matches!(wish, Wish::Absent(_, true)));
    if text.is_empty() && ours && before.is_some() {
        std::fs::remove_file(path).map_err(Failure::io("remove", path))?;
    } else if before.as_deref().unwrap_or_default() != text {
        let still = || read(call).is_ok_and(|now| now == before);
        let written = durable::replace_keeping_if(path, &bytes(&text), still);
        if !written.map_err(Failure::io("write", path))? {
            return Ok(None);
        }
    }
    let after = read(call)?;
    Ok(Some((addresses(after.as_deref()), after.is_some())))
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
        // A comment in any encoding must not stand in the way: every byte becomes the character of its number and goes back
        // as that byte.
        Ok(bytes) => Ok(Some(bytes.into_iter().map(char::from).collect())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io("read", path)(error)),
    }
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|one| u8::try_from(one).unwrap_or(b'?')).collect()
}

impl Local for HostDeny {
    fn names(&self) -> &'static [&'static str] {
        &["host-deny"]
    }

    fn takes(&self) -> Option<Takes> {
        Some(Takes::Address)
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        call.address()
    }

    fn prior(&self, call: &Call, subject: &Subject) -> Result<String, Failure> {
        Ok(match carry_out(call, Wish::Look(address(subject)?))? {
            (_, false) => "no-file",
            (true, true) => "present",
            (false, true) => "absent",
        }
        .into())
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let address = address(subject)?;
        let (path, line) = (call.places.hosts_deny.display(), format!("ALL:{}", token(address)));
        if !carry_out(call, Wish::Present(address))?.0 {
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
        if carry_out(call, Wish::Absent(address, prior == "no-file"))?.0 {
            return Err(Failure::Failed(format!("`{}` still has {address}", path.display())));
        }
        Ok(format!("`{}` has {address} no more", path.display()))
    }

    fn verify(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        Ok(carry_out(call, Wish::Look(address(subject)?))?.0)
    }
}

const MOST_BYTES: usize = 16 << 20;
const TRIES: u32 = 100;
const CONTINUED: &str = "\\\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole() {
        let is = |line: &str, text: &str| denied(line) == Some(text.parse().unwrap());
        assert!(is("ALL:10.0.0.1", "10.0.0.1") && is(" ALL : 10.0.0.1 ", "10.0.0.1"));
        assert!(!is("ALL:10.0.0.12", "10.0.0.1") && !is("ALL:110.0.0.1", "10.0.0.1"));
        assert!(!is("sshd:10.0.0.1", "10.0.0.1") && !is("#ALL:10.0.0.1", "10.0.0.1"));
        assert!(is("ALL:[2001:db8::7]", "2001:db8::7") && is("ALL:[2001:DB8:0::7]", "2001:db8::7"));
        assert!(!is("ALL:[2001:db8::70]", "2001:db8::7") && !is("", "10.0.0.1"));
    }

    fn call(home: &std::path::Path) -> Call {
        let places = super::super::Places { hosts_deny: home.join("hosts.deny"), ..Default::default() };
        Call {
            home: home.into(),
            places,
            name: "host-deny".into(),
            alert: serde_json::Value::Null,
            extra_args: vec![],
            created: tld_model::Timestamp::from_secs(0),
        }
    }

    #[test]
    fn a_comment_in_another_encoding_stands_in_nobodys_way_and_stays_byte_for_byte() {
        let home = tempfile::tempdir().unwrap();
        let call = call(home.path());
        let before = b"# l\xe4nger \xff\xc3\x28\r\nALL:10.9.9.9\n";
        durable::replace(&call.places.hosts_deny, before, 0o644).unwrap();
        let subject = Subject::Address([10, 0, 0, 1].into());
        HostDeny.apply(&call, &subject, "absent").unwrap();
        let read = || durable::read_bounded(&call.places.hosts_deny, 1_000).unwrap();
        assert_eq!(read(), [&before[..], b"ALL:10.0.0.1\n"].concat());
        HostDeny.revert(&call, &subject, "absent").unwrap();
        assert_eq!(read(), before);
    }

    #[test]
    fn a_line_behind_one_that_goes_on_is_a_line_of_its_own() {
        let home = tempfile::tempdir().unwrap();
        let call = call(home.path());
        let read =
            || String::from_utf8(durable::read_bounded(&call.places.hosts_deny, 1_000).unwrap()).unwrap();
        let subject = Subject::Address([10, 0, 0, 1].into());
        for begin in ["sshd: 10.9.9.9 \\\n", "sshd: 10.9.9.9 \\", "# comment \\\nALL:10.0.0.1\n"] {
            durable::replace(&call.places.hosts_deny, begin.as_bytes(), 0o644).unwrap();
            assert_eq!(HostDeny.prior(&call, &subject).unwrap(), "absent", "{begin}");
            HostDeny.apply(&call, &subject, "absent").unwrap();
            let denied: Vec<_> = lines(&read())
                .filter(|(line, piece)| !piece && *line == "ALL:10.0.0.1\n")
                .map(drop)
                .collect();
            assert_eq!(denied.len(), 1, "{}", read());
            HostDeny.revert(&call, &subject, "absent").unwrap();
            assert!(read().starts_with(begin), "nobody else's text is touched: {}", read());
        }
    }

    #[test]
    fn a_burst_is_written_in_a_few_rounds_and_nobody_elses_lines_are_touched() {
        // In memory where that can be had: it is the rounds that are looked at, not the disk.
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let call = call(home.path());
        let begin = "# kept\nALL:10.9.9.9\nsshd:10.0.0.1";
        durable::replace(&call.places.hosts_deny, begin.as_bytes(), 0o644).unwrap();
        let all: Vec<Subject> =
            (0..1_000_u32).map(|n| Subject::Address(IpAddr::from((0x0a00_0000 + n).to_be_bytes()))).collect();
        let each = |work: &(dyn Fn(&Subject) + Sync)| {
            std::thread::scope(|scope| {
                for part in all.chunks(32) {
                    scope.spawn(move || part.iter().for_each(work));
                }
            });
        };
        each(&|subject| {
            assert_eq!(HostDeny.prior(&call, subject).unwrap(), "absent");
            HostDeny.apply(&call, subject, "absent").unwrap();
            assert!(HostDeny.verify(&call, subject, "absent").unwrap());
        });
        let text = std::fs::read_to_string(&call.places.hosts_deny).unwrap();
        assert_eq!(text.lines().count(), 1_003, "each once");
        each(&|subject| {
            HostDeny.revert(&call, subject, "absent").unwrap();
        });
        let text = std::fs::read_to_string(&call.places.hosts_deny).unwrap();
        assert_eq!(text, format!("{begin}\n"));
    }
}
