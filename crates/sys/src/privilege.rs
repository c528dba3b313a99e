//! Who we are, what we may, and how to become less.
//!
//! Invariant: after [`drop_to`] returns successfully there is no way back to root, in any thread.

use std::io;
use std::path::Path;

use crate::durable::read_bounded;

/// A hostile or broken account file must not exhaust us; ordinary ones have a few kilobytes.
const ACCOUNT_FILE: usize = 16 << 20;

/// Whether we run as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether we may change the firewall and routes.
#[cfg(target_os = "linux")]
#[must_use]
pub fn has_net_admin() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Whether we may change the firewall and routes: root may.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn has_net_admin() -> bool {
    is_root()
}

/// User id and primary group of a local account.
#[must_use]
pub fn user(name: &str) -> Option<(u32, u32)> {
    user_in(Path::new("/etc/passwd"), name)
}

/// [`user`] in another file of that format.
#[must_use]
pub fn user_in(file: &Path, name: &str) -> Option<(u32, u32)> {
    entry(file, name, |mut fields| Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))
}

/// The id of a local group.
#[must_use]
pub fn group(name: &str) -> Option<u32> {
    group_in(Path::new("/etc/group"), name)
}

/// [`group`] in another file of that format.
#[must_use]
pub fn group_in(file: &Path, name: &str) -> Option<u32> {
    entry(file, name, |mut fields| fields.next()?.parse().ok())
}

/// Whether the local account `uid` belongs to the local group `gid`, by its primary group or as a listed member.
#[must_use]
pub fn is_member(uid: u32, gid: u32) -> bool {
    is_member_in(Path::new("/etc/passwd"), Path::new("/etc/group"), uid, gid)
}

/// [`is_member`] in other files of those formats.
#[must_use]
pub fn is_member_in(accounts: &Path, groups: &Path, uid: u32, gid: u32) -> bool {
    let fields_of = |line: &[u8]| -> Option<Vec<String>> {
        let line = std::str::from_utf8(line).ok()?;
        Some(line.split(':').map(str::to_owned).collect())
    };
    let number = |field: Option<&String>| field.and_then(|text| text.parse::<u32>().ok());
    let read = |file| read_bounded(file, ACCOUNT_FILE).unwrap_or_default();
    let accounts = read(accounts);
    let mut names = Vec::new();
    for fields in accounts.split(|byte| *byte == b'\n').filter_map(fields_of) {
        if number(fields.get(2)) == Some(uid) {
            if number(fields.get(3)) == Some(gid) {
                return true;
            }
            names.extend(fields.into_iter().next());
        }
    }
    let groups = read(groups);
    groups.split(|byte| *byte == b'\n').filter_map(fields_of).any(|fields| {
        let members = fields.get(3).map_or("", String::as_str);
        number(fields.get(2)) == Some(gid)
            && members.split(',').any(|member| names.iter().any(|n| n == member))
    })
}

/// Both files begin with name and password; `rest` gets the fields behind.
fn entry<T>(file: &Path, name: &str, rest: impl Fn(std::str::Split<'_, char>) -> Option<T>) -> Option<T> {
    let bytes = read_bounded(file, ACCOUNT_FILE).ok()?;
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        if name.is_empty() || fields.next()? != name {
            return None;
        }
        fields.next()?;
        rest(fields)
    })
}

/// Becomes `uid` and `gid` for good, without supplementary groups. With `keep_dac_read_search` the one right to
/// read every file remains (Linux), for a collector of protected logs; children do not inherit it.
///
/// Call it while the process has a single thread where a right is to be kept: rights belong to threads.
pub fn drop_to(uid: u32, gid: u32, keep_dac_read_search: bool) -> io::Result<()> {
    drop_to_with_groups(uid, gid, &[], keep_dac_read_search)
}

/// As [`drop_to`], with supplementary groups, which children inherit (a reader of the journal needs its group).
pub fn drop_to_with_groups(uid: u32, gid: u32, groups: &[u32], keep_dac_read_search: bool) -> io::Result<()> {
    if groups.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "dropping privileges to root's group"));
    }
    if uid == 0 || gid == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "dropping privileges to root"));
    }
    if keep_dac_read_search {
        keep_rights_over_change()?;
    }
    change_user(uid, gid, groups)?;
    if keep_dac_read_search {
        keep_only_dac_read_search()?;
    }
    // Trust, but verify: a kernel or security module that let us keep root must not go unnoticed.
    if rustix::process::getuid().is_root() || rustix::process::geteuid().is_root() || regain_root() {
        return Err(io::Error::other("privileges could be regained"));
    }
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// The C library's calls, unlike the system's, reach all threads.
fn change_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length are those of one slice, which lives over the call.
    #[expect(unsafe_code, reason = "no safe call that reaches all threads")]
    let groups = unsafe { libc::setgroups(groups.len(), groups.as_ptr()) };
    checked(groups)?;
    // SAFETY: takes a number, touches no memory.
    #[expect(unsafe_code, reason = "no safe call that reaches all threads")]
    let group = unsafe { libc::setgid(gid) };
    checked(group)?;
    // SAFETY: takes a number, touches no memory.
    #[expect(unsafe_code, reason = "no safe call that reaches all threads")]
    let user = unsafe { libc::setuid(uid) };
    checked(user)
}

fn regain_root() -> bool {
    // SAFETY: takes a number, touches no memory.
    #[expect(unsafe_code, reason = "no safe call that reaches all threads")]
    let answer = unsafe { libc::setuid(0) };
    answer == 0
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(target_os = "linux")]
fn keep_rights_over_change() -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(true)?)
}

#[cfg(target_os = "linux")]
fn keep_only_dac_read_search() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let kept = CapabilitySet::DAC_READ_SEARCH;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    Ok(rustix::thread::set_keep_capabilities(false)?)
}

#[cfg(not(target_os = "linux"))]
fn keep_rights_over_change() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn keep_only_dac_read_search() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::replace;

    #[test]
    fn accounts_are_found_by_exact_name_and_damaged_lines_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        replace(&file, b"wazuhx:x:1:2\nwazuh:x\n\xff:x:1:1\nwazuh:x:107:108:c:/:/bin/false\n", 0o600)
            .unwrap();
        assert_eq!(user_in(&file, "wazuh"), Some((107, 108)));
        assert_eq!(user_in(&file, "wazu"), None);
        assert_eq!(user_in(&file, ""), None);
        assert_eq!(user_in(&dir.path().join("missing"), "wazuh"), None);
        replace(&file, b"wazuh:x:109:a,b\n", 0o600).unwrap();
        assert_eq!(group_in(&file, "wazuh"), Some(109));
    }

    #[test]
    fn members_are_found_by_primary_group_and_by_list() {
        let dir = tempfile::tempdir().unwrap();
        let (accounts, groups) = (dir.path().join("passwd"), dir.path().join("group"));
        replace(&accounts, b"a:x:1:10::/:\nb:x:2:20::/:\nc:x:3:30::/:\n", 0o600).unwrap();
        replace(&groups, b"\xff:x:10:c\nwazuh:x:10:b,bb\nother:x:11:c\n", 0o600).unwrap();
        let is = |uid, gid| is_member_in(&accounts, &groups, uid, gid);
        assert!(is(1, 10) && is(2, 10) && is(3, 11));
        assert!(!is(3, 10) && !is(1, 11) && !is(4, 10));
        assert!(!is_member_in(&dir.path().join("missing"), &groups, 2, 10));
    }

    #[test]
    fn root_is_known_to_the_system() {
        assert_eq!(user("root"), Some((0, 0)));
    }

    #[test]
    fn dropping_to_root_is_refused() {
        assert!(drop_to(0, 0, false).is_err());
    }

    /// The test process must stay what it is, so the change happens in a child of this very binary.
    #[test]
    fn dropping_leaves_nothing_but_the_right_that_was_asked_for() {
        if let Some(keep) = std::env::var_os("TLD_TEST_DROP") {
            drop_to(65534, 65534, keep == "keep").unwrap();
            let status = read_bounded(Path::new("/proc/thread-self/status"), 1 << 16).unwrap();
            print!("{}", String::from_utf8(status).unwrap());
            return;
        }
        if !is_root() {
            assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "needs root");
            println!("skipped: needs root");
            return;
        }
        assert!(has_net_admin());
        let program = std::env::current_exe().unwrap();
        for (keep, rights) in [("keep", "0000000000000004"), ("none", "0000000000000000")] {
            let mut spec = crate::child::Spec::new(&program);
            let name = "privilege::tests::dropping_leaves_nothing_but_the_right_that_was_asked_for";
            spec.args = ["--exact", name, "--nocapture"].map(Into::into).to_vec();
            spec.env = vec![("TLD_TEST_DROP".into(), keep.into())];
            spec.limits.memory_bytes = None;
            let captured =
                crate::child::run_capture(&spec, b"", 1 << 16, std::time::Duration::from_secs(20)).unwrap();
            let text = String::from_utf8_lossy(&captured.stdout).into_owned();
            for line in
                ["Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1"]
            {
                assert!(text.contains(line), "{line} in {text}");
            }
            assert!(text.contains(&format!("CapEff:\t{rights}")), "{text}");
            assert!(text.contains(&format!("CapPrm:\t{rights}")), "{text}");
        }
    }
}
