//! Where administrators are logged in from: hosts of live sessions of uid 0 and of members of the groups that may
//! become root. The records are written after authentication, so that nobody protects himself by knocking.
//! Invariant: what cannot be read or understood protects nobody, and stops nothing.

use std::net::IpAddr;
use std::path::Path;

use tld_sys::durable::read_bounded;

/// The addresses of the hosts.
pub(crate) fn administrators() -> Vec<IpAddr> {
    let passwd = text(Path::new("/etc/passwd"));
    let admins = admins(&passwd, &text(Path::new("/etc/group")));
    let is_admin = |name: &str| admins.iter().any(|one| one == name);
    let records = read_bounded(Path::new("/run/utmp"), FILE).unwrap_or_default();
    let logged = logins(&records).filter(|login| is_admin(&login.user) && lives(login.pid));
    let mut peers: Vec<IpAddr> = logged.filter_map(|login| login.host).collect();
    // Newer systems keep no such records, but a file for each session.
    let sessions = std::fs::read_dir("/run/systemd/sessions").into_iter().flatten().flatten();
    for file in sessions.take(MOST_SESSIONS) {
        let session = text(&file.path());
        if value(&session, "USER").is_some_and(is_admin) && value(&session, "STATE") != Some("closing") {
            peers.extend(value(&session, "REMOTE_HOST").and_then(host));
        }
    }
    peers
}

fn text(path: &Path) -> String {
    read_bounded(path, FILE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn value<'a>(session: &'a str, name: &str) -> Option<&'a str> {
    session.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

fn host(text: &str) -> Option<IpAddr> {
    // A link-local peer is written with its interface.
    text.split('%').next()?.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn admins(passwd: &str, group: &str) -> Vec<String> {
    let mut admins = Vec::new();
    let mut numbers = Vec::new();
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, number, members] = fields.as_slice()
            && GROUPS.contains(name)
        {
            numbers.push(*number);
            admins.extend(members.split(',').filter(|member| !member.is_empty()).map(String::from));
        }
    }
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, uid, gid, ..] = fields.as_slice()
            && (*uid == "0" || numbers.contains(gid))
        {
            admins.push((*name).into());
        }
    }
    admins
}

#[derive(Debug, PartialEq, Eq)]
struct Login {
    pid: u32,
    user: String,
    host: Option<IpAddr>,
}

fn logins(records: &[u8]) -> impl Iterator<Item = Login> {
    records.chunks_exact(RECORD).filter_map(|record| {
        let kind = i16::from_ne_bytes(record.get(..2)?.try_into().ok()?);
        let pid = i32::from_ne_bytes(record.get(4..8)?.try_into().ok()?);
        let field = |from: usize, length: usize| {
            let bytes = record.get(from..from + length)?;
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(length);
            Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
        };
        let bytes: [u8; 16] = record.get(ADDRESS..ADDRESS + 16)?.try_into().ok()?;
        let address = if bytes == [0; 16] {
            None
        } else if bytes[4..] == [0; 12] {
            Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]))
        } else {
            Some(IpAddr::from(bytes).to_canonical())
        };
        (kind == USER_PROCESS).then_some(Login {
            pid: u32::try_from(pid).ok()?,
            user: field(44, 32)?,
            host: address.or_else(|| host(&field(76, 256)?)),
        })
    })
}

const USER_PROCESS: i16 = 7;
/// Machines that ran 32-bit programs from the start keep the old record.
#[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm", target_arch = "powerpc64"))]
const RECORD: usize = 384;
#[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm", target_arch = "powerpc64"))]
const ADDRESS: usize = 348;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "arm",
    target_arch = "powerpc64"
)))]
const RECORD: usize = 400;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "arm",
    target_arch = "powerpc64"
)))]
const ADDRESS: usize = 360;
const GROUPS: [&str; 3] = ["adm", "sudo", "wheel"];
const FILE: usize = 4 << 20;
const MOST_SESSIONS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, user: &str, host: &str, address: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; RECORD];
        bytes[..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&77_i32.to_ne_bytes());
        bytes[44..44 + user.len()].copy_from_slice(user.as_bytes());
        bytes[76..76 + host.len()].copy_from_slice(host.as_bytes());
        bytes[ADDRESS..ADDRESS + address.len()].copy_from_slice(address);
        bytes
    }

    #[test]
    fn logins_are_read_with_their_hosts_and_damage_is_passed_over() {
        let six: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mut records = record(7, "bob", "gate.example", &[192, 0, 2, 1]);
        records.extend(record(7, "eve", "2001:db8::7", &six.octets()));
        records.extend(record(7, "tim", "192.0.2.9", &[]));
        records.extend(record(8, "dead", "", &[192, 0, 2, 2]));
        records.extend([1, 2, 3]);
        let hosts: Vec<_> =
            logins(&records).map(|login| (login.user, login.host.unwrap().to_string())).collect();
        let is = |user: &str, host: &str| (user.to_owned(), host.to_owned());
        assert_eq!(hosts, [is("bob", "192.0.2.1"), is("eve", "2001:db8::7"), is("tim", "192.0.2.9")]);
    }

    #[test]
    fn administrators_are_root_and_the_members_of_their_groups() {
        let passwd = "root:x:0:0::/:/bin/sh\nbob:x:1:1::/:/x\neve:x:2:27::/:/x\ntim:x:3:3::/:/x\n";
        let group = "sudo:x:27:bob\nusers:x:3:tim\nwheel:x:10:\nbroken\n";
        assert_eq!(admins(passwd, group), ["bob", "root", "eve"]);
    }
}
