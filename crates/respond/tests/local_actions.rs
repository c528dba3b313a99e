//! Our own actions outside the firewall, through the responder and as executables: applied, verified, tampered with,
//! healed, reverted to exactly the former state. Everything of the host is a directory of the test or a network
//! namespace of its own; the machine's accounts, lists and routes are never touched.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test program: it reports by failing and says what it skips"
)]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Host, eventually, in_time, isolated, skipped, srcip};
use tld_model::{OutcomeKind, Timestamp};
use tld_respond::RevertSelector;
use tld_respond::control::{Reply, Request};
use tld_sys::clock::{Clock as _, SystemClock};
use tld_sys::route;

#[test]
fn a_denied_host_is_a_whole_token_and_the_list_keeps_its_owner_and_mode() {
    isolated(|| {
        let host = Host::new();
        let list = host.places.hosts_deny.clone();
        let before = "# mine\nALL:10.0.0.12\nsshd: 10.0.0.1\nALL:[2001:db8::70]";
        std::fs::write(&list, before).unwrap();
        std::fs::set_permissions(&list, std::fs::Permissions::from_mode(0o604)).unwrap();
        std::os::unix::fs::chown(&list, Some(1), Some(2)).unwrap();
        let running = host.start();
        running.applied(host.order("a", "host-deny", &srcip("10.0.0.1"), 600));
        running.applied(host.order("b", "host-deny", &srcip("2001:db8::7"), 600));
        running.applied(host.order("c", "host-deny", &srcip("10.0.0.12"), 600));
        let read = || std::fs::read_to_string(&list).unwrap();
        assert_eq!(read(), format!("{before}\nALL:10.0.0.1\nALL:[2001:db8::7]\n"));
        let again = running.give(host.order("d", "host-deny", &srcip("::ffff:10.0.0.1"), 60));
        assert_eq!(again.kind, OutcomeKind::AlreadyActive);
        // Somebody else takes a line out: it is back within the second.
        in_time("healed within two seconds", || {
            let begin = SystemClock.boot();
            std::fs::write(&list, before).unwrap();
            let healed = |text: &str| text.contains("ALL:10.0.0.1\n") && text.contains("[2001:db8::7]");
            eventually("healed", || healed(&read()));
            SystemClock.boot() - begin < Duration::from_secs(2)
        });
        running.responder.stop();
        let running = host.start();
        running.responder.revert(RevertSelector::All);
        for _ in 0..3 {
            assert_eq!(running.next().kind, OutcomeKind::Reverted);
        }
        assert_eq!(read(), format!("{before}\n"), "the line that was there before stays");
        let seen = list.metadata().unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o604, 1, 2));
        running.responder.stop();
        let log = host.log();
        let (from, to) =
            ("active-response/bin/host-deny: Starting\n", "active-response/bin/host-deny: Aborted\n");
        assert!(log.contains(from) && log.contains(to) && log.contains(r#""keys":["10.0.0.1"]"#), "{log}");
        // Three blocks and one that gave way, three undos; healing says nothing here.
        assert_eq!(log.matches(": Starting\n").count(), 7, "{log}");
        assert_eq!(log.matches(": Ended\n").count(), 6, "{log}");
    });
}

#[test]
fn a_list_that_did_not_exist_is_gone_again_afterwards() {
    isolated(|| {
        let host = Host::new();
        let running = host.start();
        running.applied(host.order("a", "host-deny", &srcip("10.0.0.1"), 1));
        assert!(host.places.hosts_deny.exists());
        assert_eq!(running.next().kind, OutcomeKind::Reverted);
        assert!(!host.places.hosts_deny.exists());
        running.responder.stop();
    });
}

#[test]
fn a_blackhole_route_is_made_healed_and_removed_but_never_an_administrators() {
    isolated(|| {
        let host = Host::new();
        let running = host.start();
        let holes = |text: &str| route::host_routes(text.parse().unwrap()).unwrap();
        let own: std::net::IpAddr = "203.0.113.9".parse().unwrap();
        route::add_blackhole(own).unwrap();
        for (id, text) in [("a", "203.0.113.7"), ("b", "2001:db8::7")] {
            running.applied(host.order(id, "route-null", &srcip(text), 600));
            assert!(holes(text)[0].blackhole);
            let errno = std::net::UdpSocket::bind(if id == "a" { "0.0.0.0:0" } else { "[::]:0" })
                .and_then(|socket| socket.connect((text, 9)))
                .unwrap_err();
            assert!(errno.raw_os_error().is_some(), "the kernel refuses to send there: {errno}");
            route::remove_blackhole(text.parse().unwrap()).unwrap();
            eventually("healed", || !holes(text).is_empty());
            running.lifted();
            assert_eq!(holes(text), []);
        }
        let told = running.give(host.order("x", "route-null", r#"{"srcip":"nobody"}"#, 600));
        assert_eq!((told.kind, told.detail.as_str()), (OutcomeKind::Failed, "Cannot read 'srcip' from data"));
        running.responder.stop();
    });
}

#[test]
fn an_account_is_locked_and_only_unlocked_if_it_was_open_before() {
    if !Path::new("/usr/sbin/usermod").is_file() || rustix::process::geteuid().as_raw() != 0 {
        return skipped("root and usermod");
    }
    isolated(|| {
        let host = Host::new();
        let etc = host.path("host/etc");
        let shadow = "bob:$6$x$y:19000:0:99999:7:::\neve:!$6$x$z:19000:0:99999:7::20000:\n";
        std::fs::write(etc.join("passwd"), "bob:x:5001:5001::/:/bin/sh\neve:x:5002:5002::/:/bin/sh\n")
            .unwrap();
        std::fs::write(etc.join("group"), "bob:x:5001:\neve:x:5002:\n").unwrap();
        std::fs::write(etc.join("shadow"), shadow).unwrap();
        let field = |user: &str, at: usize| {
            let text = std::fs::read_to_string(etc.join("shadow")).unwrap();
            let line = text.lines().find(|line| line.starts_with(user)).unwrap().to_owned();
            line.split(':').nth(at).unwrap().to_owned()
        };
        let running = host.start();
        for (id, user) in [("a", "bob"), ("b", "eve")] {
            let mut order = host.order(id, "disable-account", &format!(r#"{{"dstuser":"{user}"}}"#), 600);
            // Some hand all words over as one text.
            order.extra_args = vec![if user == "bob" { "expire" } else { "other expire" }.into()];
            running.applied(order);
            assert!(field(user, 1).starts_with('!'));
            assert_eq!(field(user, 7), "1");
        }
        std::fs::write(etc.join("shadow"), shadow).unwrap();
        eventually("healed", || field("bob", 1).starts_with('!') && field("eve", 7) == "1");
        eventually("recorded", || running.responder.active().len() == 2);
        running.responder.revert(RevertSelector::All);
        assert_eq!([running.next().kind, running.next().kind], [OutcomeKind::Reverted; 2]);
        assert_eq!((field("bob", 1).as_str(), field("bob", 7).as_str()), ("$6$x$y", ""));
        assert_eq!((field("eve", 1).as_str(), field("eve", 7).as_str()), ("!$6$x$z", "20000"));
        for bad in [r#"{"dstuser":"root"}"#, r#"{"dstuser":"-x"}"#, "{}"] {
            let told = running.give(host.order(bad, "disable-account", bad, 600));
            assert_eq!(told.detail, "Cannot read 'dstuser' from data or invalid username format");
        }
        let told = running.give(host.order("n", "disable-account", r#"{"dstuser":"nobody0"}"#, 600));
        assert_eq!(told.kind, OutcomeKind::Failed, "{}", told.detail);
        running.responder.stop();
    });
}

/// Accounts `bob` (open) and `eve` with these numbers and this file of passwords.
fn accounts(host: &Host, shadow: &str, numbers: [u32; 2]) {
    let etc = host.path("host/etc");
    let [bob, eve] = numbers;
    let passwd = format!("bob:x:{bob}:{bob}::/:/bin/sh\neve:x:{eve}:{eve}::/:/bin/sh\n");
    std::fs::write(etc.join("passwd"), passwd).unwrap();
    std::fs::write(etc.join("group"), format!("bob:x:{bob}:\neve:x:{eve}:\n")).unwrap();
    std::fs::write(etc.join("shadow"), shadow).unwrap();
}

#[test]
fn what_somebody_changed_on_a_locked_account_is_left_and_told() {
    if !Path::new("/usr/sbin/usermod").is_file() || rustix::process::geteuid().as_raw() != 0 {
        return skipped("root and usermod");
    }
    isolated(|| {
        let host = Host::new();
        let shadow = host.path("host/etc/shadow");
        let line = |password: &str, expire: &str| format!("bob:{password}:19000:0:99999:7::{expire}:\n");
        // What the file says when the response ends, what it must say afterwards, and what is told.
        let locked = "left locked";
        for (n, (during, after, told)) in [
            (("!$6$x$y", "1"), ("$6$x$y", ""), "no longer locked"),
            // Locked for good by an administrator, in ways that can be seen.
            (("!!$6$x$y", "1"), ("!!$6$x$y", ""), locked),
            (("*", "1"), ("*", ""), locked),
            (("!$6$new$new", "1"), ("!$6$new$new", ""), locked),
            (("!$6$x$y", "19500"), ("$6$x$y", "19500"), "somebody changed when `bob` expires"),
        ]
        .into_iter()
        .enumerate()
        {
            accounts(&host, &line("$6$x$y", ""), [5001, 5002]);
            let running = host.start();
            let mut order = host.order(&format!("a{n}"), "disable-account", r#"{"dstuser":"bob"}"#, 600);
            order.extra_args = vec!["expire".into()];
            running.applied(order);
            assert_eq!(std::fs::read_to_string(&shadow).unwrap(), line("!$6$x$y", "1"));
            // The healing would hide what is tested, so it happens while nobody looks.
            running.responder.control(Request::Pause);
            std::fs::write(&shadow, line(during.0, during.1)).unwrap();
            running.responder.revert(RevertSelector::All);
            let outcome = running.next();
            assert_eq!(outcome.kind, OutcomeKind::Reverted, "{}", outcome.detail);
            let proof = outcome.evidence.read_back.unwrap();
            assert!(proof.contains(told), "{during:?}: {proof}");
            assert_eq!(std::fs::read_to_string(&shadow).unwrap(), line(after.0, after.1), "{during:?}");
            running.responder.control(Request::Resume);
            running.responder.stop();
        }
        let journal = std::fs::read(host.path("var/threatlockdown/journal.db")).unwrap();
        assert!(
            !journal.windows(7).any(|bytes| bytes == b"$6$x$y\0" || bytes == b"$6$x$y:"),
            "no hash is kept"
        );
    });
}

#[test]
fn the_sessions_of_an_account_end_and_its_daemons_and_its_neighbours_do_not() {
    let tools = ["/usr/sbin/usermod", "/usr/bin/script", "/usr/bin/setpriv"];
    if tools.iter().any(|tool| !Path::new(tool).is_file()) || rustix::process::geteuid().as_raw() != 0 {
        return skipped("root, usermod (package passwd), script (bsdutils) and setpriv (util-linux)");
    }
    isolated(|| {
        let host = Host::new();
        // Numbers that nobody else on the machine has.
        let [bob, eve] = [0, 1].map(|n| 1_000_000 + 2 * std::process::id() + n);
        accounts(&host, "bob:$6$x$y:19000:0:99999:7:::\neve:$6$x$y:19000:0:99999:7:::\n", [bob, eve]);
        let asked = host.path("asked");
        host.tool("loginctl", &format!("echo \"$@\" >> {}; exit 1\n", asked.display()));
        let as_user = |number: u32, words: &[&str]| {
            let mut command = std::process::Command::new("/usr/bin/setpriv");
            command.args([format!("--reuid={number}"), format!("--regid={number}"), "--clear-groups".into()]);
            command.args(words).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
            Killed(command.spawn().unwrap())
        };
        let login = ["/usr/bin/script", "-qc", "sleep 600", "/dev/null"];
        let (mut his, _hers) = (as_user(bob, &login), as_user(eve, &login));
        let mut daemon = as_user(bob, &["/usr/bin/setsid", "sleep", "600"]);
        let with_terminal = |number: u32| {
            let every = std::fs::read_dir("/proc").unwrap().flatten();
            let stats = every.filter(|entry| entry.metadata().is_ok_and(|about| about.uid() == number));
            let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
            let fields = stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()));
            fields.filter(|text| !text.starts_with('Z') && text.split(' ').nth(4) != Some("0")).count()
        };
        eventually("both are logged in", || with_terminal(bob) > 0 && with_terminal(eve) > 0);
        let running = host.start();
        let mut order = host.order("a", "disable-account", r#"{"dstuser":"bob"}"#, 600);
        order.extra_args = vec!["sessions".into()];
        let told = running.give(order);
        assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
        let proof = told.evidence.read_back.unwrap();
        assert!(proof.contains("its sessions were ended ("), "{proof}");
        assert_eq!(with_terminal(bob), 0);
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "terminate-user -- bob\n");
        his.0.wait().unwrap();
        assert!(with_terminal(eve) > 0, "her session goes on");
        assert!(daemon.0.try_wait().unwrap().is_none(), "what is no login goes on");
        running.lifted();
        running.responder.stop();
    });
}

#[test]
fn the_custom_hook_has_a_file_per_address() {
    isolated(|| {
        let host = Host::new();
        let running = host.start();
        for (id, text) in [("a", "203.0.113.7"), ("b", "2001:db8::7")] {
            let file = host.places.ipblock.join(text);
            running.applied(host.order(id, "ip-customblock", &srcip(text), 0));
            assert_eq!(std::fs::read(&file).unwrap(), b"");
            std::fs::remove_file(&file).unwrap();
            eventually("healed", || file.exists());
            eventually("recorded", || running.responder.active().len() == 1);
            running.lifted();
            assert!(!file.exists());
        }
        running.responder.stop();
    });
}

#[test]
fn a_file_goes_into_quarantine_and_comes_back_as_it_was() {
    isolated(|| {
        let host = Host::new();
        let file = host.path("host/evil file");
        let place = host.path("var/threatlockdown/quarantine");
        let running = host.start();
        std::fs::write(&file, "bad").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
        let inside = serde_json::json!({"file": file}).to_string();
        // What lies below the home is ours.
        assert_eq!(
            running.give(host.order("own", "quarantine-file", &inside, 600)).kind,
            OutcomeKind::Refused
        );
        let other = tempfile::tempdir().unwrap();
        let file = other.path().join("evil file");
        std::fs::write(&file, "bad").unwrap();
        std::os::unix::fs::chown(&file, Some(1), Some(2)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
        let data = serde_json::json!({"file": file}).to_string();
        running.applied(host.order("a", "quarantine-file", &data, 600));
        assert!(!file.exists());
        let kept: Vec<_> = place.read_dir().unwrap().flatten().collect();
        assert_eq!(kept.len(), 1);
        // sha256 of "bad".
        assert!(kept[0].file_name().to_string_lossy().starts_with("2f05d4b6"), "{kept:?}");
        assert_eq!(kept[0].metadata().unwrap().mode() & 0o7777, 0);
        std::fs::rename(kept[0].path(), &file).unwrap();
        eventually("healed", || !file.exists());
        eventually("recorded", || running.responder.active().len() == 1);
        running.lifted();
        assert_eq!(std::fs::read(&file).unwrap(), b"bad");
        let seen = file.metadata().unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o4711, 1, 2));
        // A link on the way is not followed.
        let link = other.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        let data = serde_json::json!({"file": link.join("hostname")}).to_string();
        assert_eq!(running.give(host.order("b", "quarantine-file", &data, 600)).kind, OutcomeKind::Failed);
        for bad in [r#"{"file":"/etc/passwd"}"#, r#"{"file":"/tmp/../etc/x"}"#, r#"{"file":"x"}"#] {
            let told = running.give(host.order(bad, "quarantine-file", bad, 600));
            assert!(matches!(told.kind, OutcomeKind::Refused | OutcomeKind::Failed), "{}", told.detail);
        }
        running.responder.stop();
    });
}

/// A process that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_cannot_be_put_back_is_told_once_a_minute_and_what_is_out_of_reach_not_at_all() {
    isolated(|| {
        let host = Host::new();
        let said = Arc::new(Mutex::new(Vec::<String>::new()));
        let lines = Arc::clone(&said);
        let mut setup = host.setup();
        setup.log = Arc::new(move |line: &str| lines.lock().unwrap().push(line.into()));
        let count = |text: &str| said.lock().unwrap().iter().filter(|line| line.contains(text)).count();
        let running = host.start_with(setup);
        let status = || match running.responder.control(Request::Status) {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        };
        // A change beside the list of denied hosts makes the next look come at once.
        let look = || std::fs::write(host.path("host/etc/stir"), "x").unwrap();
        let other = tempfile::tempdir().unwrap();
        let file = other.path().join("evil");
        std::fs::write(&file, "bad").unwrap();
        let data = serde_json::json!({"file": file}).to_string();
        running.applied(host.order("a", "quarantine-file", &data, 600));
        running.applied(host.order("b", "ip-customblock", &srcip("203.0.113.7"), 600));
        std::fs::remove_dir_all(host.path("var/threatlockdown/quarantine")).unwrap();
        let (hook, aside) = (host.path("host/ipblock/203.0.113.7"), host.path("host/aside"));
        std::fs::create_dir(&aside).unwrap();
        let (at, swap) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
        rustix::fs::renameat_with(at, &hook, at, &aside, swap).unwrap();
        eventually("it fails twice", || {
            // Not sooner than it looks by itself: only so many attempts a minute are made.
            if status().failed == 0 {
                look();
            }
            status().failed >= 2
        });
        assert_eq!((status().healed, status().enforced), (0, 1));
        std::fs::remove_dir(&hook).unwrap();
        eventually("it is put back", || {
            look();
            status().healed >= 1
        });
        assert!(hook.is_file());
        assert_eq!(count("cannot be put back"), 1, "{:?}", said.lock().unwrap());
        assert_eq!((count("was put back"), count("quarantine")), (1, 0), "{:?}", said.lock().unwrap());
        running.responder.stop();
    });
}

#[test]
fn a_file_of_another_file_system_comes_back_as_it_was_and_never_as_another() {
    if rustix::process::geteuid().as_raw() != 0 {
        return skipped("root");
    }
    isolated(|| {
        let host = Host::new();
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return skipped("/dev/shm") };
        let file = other.path().join("evil");
        let place = host.path("var/threatlockdown/quarantine");
        let put = || {
            let _ = std::fs::remove_file(&file);
            std::fs::write(&file, "bad").unwrap();
            std::os::unix::fs::chown(&file, Some(1), Some(2)).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        };
        let data = serde_json::json!({"file": file}).to_string();
        let kept = || place.read_dir().unwrap().flatten().map(|entry| entry.path()).next();
        let running = host.start();
        put();
        running.applied(host.order("a", "quarantine-file", &data, 600));
        assert!(!file.exists() && kept().is_some());
        running.lifted();
        let seen = file.metadata().unwrap();
        assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid()), (0o640, 1, 2));
        assert_eq!((std::fs::read(&file).unwrap().as_slice(), kept()), (&b"bad"[..], None));
        // What is in quarantine by now is not given to the owner of what was taken.
        put();
        running.applied(host.order("b", "quarantine-file", &data, 600));
        let inside = kept().unwrap();
        std::fs::remove_file(&inside).unwrap();
        std::fs::write(&inside, "a secret of somebody else").unwrap();
        running.responder.revert(RevertSelector::All);
        let told = running.next();
        assert_eq!(told.kind, OutcomeKind::RevertFailed, "{}", told.detail);
        assert!(told.detail.contains("not what was taken") && !file.exists(), "{}", told.detail);
        running.responder.stop();
    });
}

#[test]
fn nothing_that_the_host_runs_on_goes_into_quarantine() {
    isolated(|| {
        let host = Host::new();
        let running = host.start();
        let own = std::env::current_exe().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library =
            maps.lines().find_map(|line| line.split(' ').next_back().filter(|file| file.contains("/libc")));
        let files = [own.to_str(), library, Some("/etc/shadow"), Some("/usr/bin/bash"), Some("/etc/fstab")];
        for file in files.into_iter().flatten() {
            let data = serde_json::json!({"file": file}).to_string();
            let told = running.give(host.order(file, "quarantine-file", &data, 600));
            assert_eq!(told.kind, OutcomeKind::Refused, "{file}: {}", told.detail);
            assert!(Path::new(file).exists() || file == "/etc/fstab");
        }
        running.responder.stop();
    });
}

#[test]
fn only_the_process_that_the_alert_means_is_ended() {
    isolated(|| {
        let host = Host::new();
        let running = host.start();
        let sleeper = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let pid = sleeper.id();
        let mut sleeper = Killed(sleeper);
        let file = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let data = |exe: &str| format!(r#"{{"pid":"{pid}","exe":"{exe}"}}"#);
        let told = running.give(host.order("a", "kill-process", &data("/bin/other"), 0));
        assert_eq!(told.kind, OutcomeKind::Refused, "{}", told.detail);
        let mut early = host.order("b", "kill-process", &data(&file.display().to_string()), 0);
        early.created = Timestamp::from_secs(early.created.secs() - 60);
        assert_eq!(running.give(early).kind, OutcomeKind::Refused, "younger than the alert");
        running.applied(host.order("c", "kill-process", &data(&file.display().to_string()), 0));
        assert!(!sleeper.0.wait().unwrap().success());
        let elsewhere = tempfile::tempdir().unwrap();
        let (program, ours) = (elsewhere.path().join("program"), host.path("active-response/bin/daemon"));
        for (file, kind) in [(&program, OutcomeKind::Applied), (&ours, OutcomeKind::Refused)] {
            // By another process: were it open for writing here while another test forks, it could not be run.
            assert!(std::process::Command::new("cp").arg("/bin/sleep").arg(file).status().unwrap().success());
            let mut one = Killed(std::process::Command::new(file).arg("600").spawn().unwrap());
            // Attackers remove the file; the process goes on.
            std::fs::remove_file(file).unwrap();
            let data = format!(r#"{{"pid":{},"exe":"{}"}}"#, one.0.id(), file.display());
            let told = running.give(host.order(&file.display().to_string(), "kill-process", &data, 0));
            assert_eq!(told.kind, kind, "{}", told.detail);
            assert_eq!(one.0.try_wait().unwrap().is_some(), kind == OutcomeKind::Applied);
        }
        let own = format!(r#"{{"pid":{}}}"#, std::process::id());
        assert_eq!(running.give(host.order("d", "kill-process", &own, 0)).kind, OutcomeKind::Refused);
        assert_eq!(
            running.give(host.order("e", "kill-process", r#"{"pid":1}"#, 0)).kind,
            OutcomeKind::Refused
        );
        running.responder.stop();
    });
}

#[test]
fn firewalld_is_asked_and_its_exit_status_believed() {
    isolated(|| {
        let host = Host::new();
        let rules = host.path("host/rules");
        std::fs::write(&rules, "").unwrap();
        let shown = rules.display();
        host.tool(
            "firewall-cmd",
            &format!(
                "case \"$1\" in\n--query-rich-rule) grep -qxF -- \"$2\" {shown};;\n\
                 --add-rich-rule) printf '%s\\n' \"$2\" >> {shown};;\n\
                 --remove-rich-rule) grep -vxF -- \"$2\" {shown} > {shown}.new; mv {shown}.new {shown};;\n\
                 *) exit 2;; esac\n"
            ),
        );
        let running = host.start();
        for (id, text, family) in [("a", "203.0.113.7", "ipv4"), ("b", "2001:db8::7", "ipv6")] {
            let rule = format!("rule family={family} source address={text} drop\n");
            running.applied(host.order(id, "firewalld-drop", &srcip(text), 600));
            assert_eq!(std::fs::read_to_string(&rules).unwrap(), rule);
            std::fs::write(&rules, "").unwrap();
            eventually("healed", || std::fs::read_to_string(&rules).unwrap() == rule);
            eventually("recorded", || running.responder.active().len() == 1);
            running.lifted();
            assert_eq!(std::fs::read_to_string(&rules).unwrap(), "");
        }
        host.tool("firewall-cmd", "echo 'INVALID_RULE' >&2; exit 118\n");
        let told = running.give(host.order("c", "firewalld-drop", &srcip("203.0.113.8"), 600));
        assert!(told.kind == OutcomeKind::Failed && told.detail.contains("INVALID_RULE"), "{}", told.detail);
        host.tool("firewall-cmd", "exit 252\n");
        let told = running.give(host.order("d", "firewalld-drop", &srcip("203.0.113.9"), 600));
        assert_eq!(told.kind, OutcomeKind::Unsupported);
        running.responder.stop();
    });
}

/// Answers one request and returns it.
fn answer(listener: &std::net::TcpListener, status: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    let text = loop {
        let count = stream.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
        if count == 0 || body.len() >= length.parse().unwrap() {
            break text;
        }
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    text
}

#[test]
fn a_webhook_gets_the_document_and_its_answer_decides() {
    for tool in ["curl", "wget"] {
        if Path::new("/usr/bin").join(tool).is_file() {
            posted_by(tool);
        } else {
            skipped(tool);
        }
    }
}

fn posted_by(tool: &str) {
    isolated(|| {
        let mut host = Host::new();
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(tool), host.path("host/tools").join(tool))
            .unwrap();
        host.places.tools.truncate(1);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}/hook", listener.local_addr().unwrap().port());
        let running = host.start();
        for (id, name, status, kind) in [
            ("a", "wazuh-slack", "200 OK", OutcomeKind::Applied),
            ("b", "webhook", "204 No Content", OutcomeKind::Applied),
            ("c", "webhook", "500 Broken", OutcomeKind::Failed),
        ] {
            let mut order = host.order(id, name, &srcip("203.0.113.7"), 0);
            order.extra_args = vec![url.clone()];
            running.responder.submit(order).unwrap();
            let request = answer(&listener, status);
            assert!(request.starts_with("POST /hook"), "{request}");
            let expected = if id == "a" { r#""pretext":"WAZUH Alert""# } else { r#""srcip":"203.0.113.7""# };
            assert!(request.contains(expected), "{request}");
            let told = running.next();
            assert_eq!(told.kind, kind, "{}", told.detail);
        }
        let mut order = host.order("d", "webhook", "{}", 0);
        order.extra_args = vec!["file:///etc/passwd".into()];
        assert_eq!(running.give(order).kind, OutcomeKind::Failed);
        running.responder.stop();
        assert!(!host.log().contains("check_keys"));
        let left = std::fs::read_dir(host.path("var/threatlockdown")).unwrap().flatten();
        assert_eq!(left.filter(|file| file.file_name().to_string_lossy().starts_with("post-")).count(), 0);
    });
}

#[test]
fn tools_that_are_absent_make_a_response_unsupported() {
    isolated(|| {
        let mut host = Host::new();
        host.places.tools = vec![host.path("host/tools")];
        let running = host.start();
        let mut scan = host.order("a", "kaspersky", "{}", 0);
        scan.extra_args = vec!["--full_scan".into()];
        let mut hook = host.order("b", "webhook", "{}", 0);
        hook.extra_args = vec!["https://hooks.example/x".into()];
        let firewalld = host.order("c", "firewalld-drop", &srcip("203.0.113.7"), 600);
        let restart = host.order("d", "restart-wazuh", "{}", 0);
        for order in [scan, hook, firewalld, restart] {
            let told = running.give(order);
            assert_eq!(told.kind, OutcomeKind::Unsupported, "{} {}", told.program, told.detail);
        }
        let control = host.path("bin/wazuh-control");
        std::fs::create_dir_all(control.parent().unwrap()).unwrap();
        std::fs::write(&control, format!("#!/bin/sh\necho $1 > {}\n", host.path("asked").display())).unwrap();
        std::fs::set_permissions(&control, std::fs::Permissions::from_mode(0o750)).unwrap();
        running.applied(host.order("e", "restart-wazuh", "{}", 0));
        assert_eq!(std::fs::read_to_string(host.path("asked")).unwrap(), "restart\n");
        running.responder.stop();
    });
}

#[test]
fn an_isolated_host_reaches_its_manager_and_itself_only() {
    if !Path::new("/usr/sbin/nft").is_file() {
        return skipped("nft");
    }
    isolated(|| {
        let mut host = Host::new();
        let reachable = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let running = host.start();
        let refused = running.give(host.order("a", "isolate-host", "{}", 600));
        assert_eq!(refused.kind, OutcomeKind::Refused, "nobody could lift it: {}", refused.detail);
        running.responder.stop();
        host.places.managers = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let running = host.start();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        running.applied(host.order("b", "isolate-host", "{}", 600));
        assert!(reachable(port), "loopback passes");
        let nft = |args: &[&str]| std::process::Command::new("/usr/sbin/nft").args(args).output().unwrap();
        let listed = String::from_utf8(nft(&["list", "ruleset"]).stdout).unwrap();
        assert!(listed.contains("192.0.2.1") && listed.contains("2001:db8::1"), "{listed}");
        assert!(nft(&["delete", "table", "inet", "threatlockdown_isolation"]).status.success());
        let present = || nft(&["list", "table", "inet", "threatlockdown_isolation"]).status.success();
        eventually("healed", present);
        eventually("recorded", || running.responder.active().len() == 1);
        running.lifted();
        assert!(!present());
        running.responder.stop();
    });
}

#[test]
fn a_manager_known_by_its_name_stays_in_reach_with_the_servers_that_know_the_name() {
    if !Path::new("/usr/sbin/nft").is_file() {
        return skipped("nft");
    }
    isolated(|| {
        let host = Host::new();
        let start = |managers: &[&str]| {
            let mut setup = host.setup();
            setup.managers = managers.iter().map(|name| (*name).to_owned()).collect();
            host.start_with(setup)
        };
        let listed = || {
            let mut command = std::process::Command::new("/usr/sbin/nft");
            String::from_utf8(command.args(["list", "ruleset"]).output().unwrap().stdout).unwrap()
        };
        let running = start(&["no.such.name.invalid"]);
        let told = running.give(host.order("a", "isolate-host", "{}", 600));
        assert_eq!(told.kind, OutcomeKind::Refused, "{}", told.detail);
        assert!(told.detail.contains("(no.such.name.invalid cannot be looked up)"), "{}", told.detail);
        running.responder.stop();
        // An address in a form that only the system's resolver takes for one: a name that is known without a server.
        let (name, address) = ("3221225985", "192.0.2.1");
        let running = start(&[name, "no.such.name.invalid"]);
        let mut n = 0;
        let proof = loop {
            n += 1;
            let told = running.give(host.order(&format!("b{n}"), "isolate-host", "{}", 600));
            // Names are looked up beside everything else.
            match told.kind {
                OutcomeKind::Applied => break told.evidence.read_back.unwrap(),
                _ => assert!(told.kind == OutcomeKind::Refused && n < 200, "{}", told.detail),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(
            proof.contains(address) && proof.contains("no.such.name.invalid cannot be looked up"),
            "{proof}"
        );
        let rules = listed();
        assert!(rules.contains(address) && rules.contains("udp dport 67"), "{rules}");
        let servers = tld_sys::host::resolvers();
        if servers.iter().any(|server| !server.is_loopback() && !server.is_unspecified()) {
            assert!(rules.contains("th dport { 53, 853 }"), "{rules}");
        }
        running.lifted();
        running.responder.stop();
        // Who opens a hole is noticed, where every manager is known.
        let running = start(&[address]);
        running.applied(host.order("c", "isolate-host", "{}", 600));
        let whole = listed();
        let hole = ["insert", "rule", "inet", "threatlockdown_isolation", "output", "accept"];
        let mut command = std::process::Command::new("/usr/sbin/nft");
        assert!(command.args(hole).status().unwrap().success());
        eventually("the hole is closed", || listed() == whole);
        eventually("recorded", || running.responder.active().len() == 1);
        running.lifted();
        running.responder.stop();
    });
}

#[test]
fn what_an_executable_found_before_it_failed_is_not_restored_after_another_attempt() {
    let host = Host::new();
    host.tool("usermod", "exit 1\n");
    let shadow =
        |field: &str| std::fs::write(host.path("host/etc/shadow"), format!("bob:{field}:1:0:9:7:::\n"));
    std::fs::write(host.path("host/etc/passwd"), "bob:x:1000:1000::/:/bin/sh\n").unwrap();
    let run = |commands: &[&str]| {
        let line = |verb: &&str| {
            format!(
                r#"{{"version":1,"origin":{{}},"command":"{verb}","parameters":{{"alert":{{"data":{{"dstuser":"bob"}}}}}}}}"#
            ) + "\n"
        };
        let input: String = commands.iter().map(line).collect();
        let (home, places) = (host.home.path(), host.places.clone());
        let run = tld_respond::multicall::run_script_at;
        run("disable-account", home, places, &mut input.as_bytes(), &mut Vec::new())
    };
    shadow("hash").unwrap();
    assert_eq!(run(&["add", "continue"]), 255);
    // An administrator locks the account, and it is locked once more by us.
    shadow("!hash").unwrap();
    host.tool("usermod", "touch \"$(dirname \"$0\")/../called\"\n");
    assert_eq!(run(&["add", "continue"]), 0);
    assert_eq!(run(&["delete"]), 0);
    assert!(!host.path("host/called").exists(), "the administrator's lock stays: {}", host.log());
}

#[test]
fn bytes_that_are_no_text_and_long_messages_keep_nobody_unblocked() {
    let host = Host::new();
    let begin = br#"{"version":1,"origin":{},"command":""#;
    let long = [&b"\xff\xfe\xc3("[..], &b"x".repeat(65_600)].concat();
    let line = |verb: &str| {
        let middle =
            format!(r#"{verb}","parameters":{{"alert":{{"data":{{"srcip":"10.0.0.1"}},"full_log":""#);
        [&begin[..], middle.as_bytes(), &long, b"\"}}}\n"].concat()
    };
    let input = [line("add"), line("continue")].concat();
    let (home, places) = (host.home.path(), host.places.clone());
    let run = tld_respond::multicall::run_script_at;
    assert_eq!(run("host-deny", home, places, &mut &input[..], &mut Vec::new()), 0, "{}", host.log());
    assert_eq!(std::fs::read_to_string(&host.places.hosts_deny).unwrap(), "ALL:10.0.0.1\n");
}

#[test]
fn as_executables_they_obey_the_dialogue_and_restore_what_they_found() {
    isolated(|| {
        let host = Host::new();
        std::fs::write(&host.places.hosts_deny, "ALL:10.0.0.9\n").unwrap();
        let run = |name: &str, commands: &[&str], address: &str| {
            let line = |verb: &str| {
                format!(
                    r#"{{"version":1,"origin":{{"name":"n","module":"wazuh-execd"}},"command":"{verb}","parameters":{{"extra_args":[],"alert":{{"data":{{"srcip":"{address}"}}}},"program":"p"}}}}"#
                ) + "\n"
            };
            let input: String = commands.iter().map(|verb| line(verb)).collect();
            let mut output = Vec::new();
            let status = tld_respond::multicall::run_script_at(
                name,
                host.home.path(),
                host.places.clone(),
                &mut input.as_bytes(),
                &mut output,
            );
            (status, String::from_utf8(output).unwrap())
        };
        let read = || std::fs::read_to_string(&host.places.hosts_deny).unwrap();
        let keys = |name: &str, key: &str| {
            format!(
                r#"{{"version":1,"origin":{{"name":"{name}","module":"active-response"}},"command":"check_keys","parameters":{{"keys":["{key}"]}}}}"#
            ) + "\n"
        };
        for address in ["10.0.0.1", "10.0.0.9", "2001:db8::7"] {
            assert_eq!(run("host-deny", &["add", "abort"], address), (0, keys("host-deny", address)));
            assert_eq!(run("host-deny", &["add", "continue"], address).0, 0);
        }
        assert_eq!(read(), "ALL:10.0.0.9\nALL:10.0.0.1\nALL:[2001:db8::7]\n");
        for address in ["10.0.0.1", "10.0.0.9", "2001:db8::7"] {
            assert_eq!(run("host-deny", &["delete"], address), (0, String::new()));
        }
        assert_eq!(read(), "ALL:10.0.0.9\n");
        for (name, address) in [("ip-customblock", "10.0.0.1"), ("route-null", "2001:db8::7")] {
            assert_eq!(run(name, &["add", "continue"], address), (0, keys(name, address)));
            assert_eq!(run(name, &["delete"], address).0, 0);
        }
        assert_eq!(run("webhook", &["add"], "10.0.0.1").0, 255);
        assert_eq!(run("block-ip", &["add", "other"], "10.0.0.1").0, 255);
        let log = host.log();
        assert!(
            log.contains("active-response/bin/route-null: Ended\n") && log.contains(": Aborted\n"),
            "{log}"
        );
    });
}
