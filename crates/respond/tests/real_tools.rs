//! Actions against the real tools and services that they are for: firewalld with its own bus, services behind
//! tcp-wrappers, the account tools. Each is applied, verified, tampered with, healed, reverted and verified again, with
//! IPv4 and IPv6, in network and mount namespaces that the test makes.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test program: it reports by failing and says what it measured"
)]

mod common;

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Host, eventually, in_time, isolated, skipped, srcip};
use tld_model::OutcomeKind;
use tld_sys::clock::{Clock as _, SystemClock};

fn tools(needed: &[(&str, &str)]) -> bool {
    for (tool, package) in needed {
        if !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).is_file()) {
            skipped(&format!("{tool} (package {package})"));
            return false;
        }
    }
    true
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn ip(args: &str) {
    let (done, text) = said(Command::new("ip").args(args.split(' ')));
    assert!(done, "ip {args}: {text}");
}

/// firewalld with a message bus of its own, in mount and process namespaces that end with it, in our network.
struct Firewalld(Child);

impl Firewalld {
    fn start() -> Self {
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/dbus && dbus-daemon --system --fork --nopidfile && \
            exec firewalld --nofork --nopid --log-target=console";
        let mut command = Command::new("unshare");
        command.args(["-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Self(child);
        eventually("firewalld runs", || daemon.asked(&["--state"]).0);
        daemon
    }

    /// Where its bus is seen from outside.
    fn bus(&self) -> PathBuf {
        format!("/proc/{}/root/run/dbus/system_bus_socket", self.0.id()).into()
    }

    /// The tool that reaches it.
    fn tool(&self) -> String {
        format!("exec nsenter -t {} -m /usr/bin/firewall-cmd \"$@\"\n", self.0.id())
    }

    fn asked(&self, arguments: &[&str]) -> (bool, String) {
        let pid = self.0.id().to_string();
        said(Command::new("nsenter").args(["-t", &pid, "-m", "/usr/bin/firewall-cmd"]).args(arguments))
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// firewalld has the rules, loses them, gets them back: asked over its bus, or by its tool.
fn firewalld_keeps_the_rules(over_bus: bool) {
    let needed =
        [("firewalld", "firewalld"), ("dbus-daemon", "dbus"), ("nft", "nftables"), ("nsenter", "util-linux")];
    if !tools(&needed) {
        return;
    }
    isolated(|| {
        ip("link set lo up");
        let daemon = Firewalld::start();
        let mut host = Host::new();
        if over_bus {
            host.places.bus = daemon.bus();
            host.tool("firewall-cmd", "exit 99\n");
        } else {
            host.tool("firewall-cmd", &daemon.tool());
        }
        let running = host.start();
        let addresses =
            [("203.0.113.7", "ip saddr 203.0.113.7 drop"), ("2001:db8::7", "ip6 saddr 2001:db8::7 drop")];
        // One that was there before stays when ours ends.
        let theirs = "rule family=ipv4 source address=203.0.113.9 drop";
        assert!(daemon.asked(&["--add-rich-rule", theirs]).0);
        for (address, _) in addresses {
            running.applied(host.order(address, "firewalld-drop", &srcip(address), 600));
        }
        running.applied(host.order("theirs", "firewalld-drop", &srcip("203.0.113.9"), 600));
        let listed = || said(Command::new("nft").args(["list", "ruleset"])).1;
        let enforced = || {
            let listed = listed();
            addresses.iter().filter(|(_, rule)| listed.contains(rule)).count()
        };
        assert_eq!(enforced(), 2, "in the kernel, not only in firewalld's own words");
        assert!(daemon.asked(&["--reload"]).0);
        let reloaded = SystemClock.boot();
        eventually("healed", || enforced() == 2);
        println!("healed {:?} after the reload had ended", SystemClock.boot() - reloaded);
        let rule = "rule family=ipv4 source address=203.0.113.7 drop";
        assert!(daemon.asked(&["--remove-rich-rule", rule]).0);
        let removed = SystemClock.boot();
        eventually("healed again", || enforced() == 2);
        println!("healed {:?} after a rule was removed", SystemClock.boot() - removed);
        eventually("recorded", || running.responder.active().len() == 3);
        running.responder.revert(tld_respond::RevertSelector::All);
        for _ in 0..3 {
            let told = running.next();
            assert_eq!(told.kind, OutcomeKind::Reverted, "{}", told.detail);
        }
        assert_eq!(enforced(), 0);
        assert!(listed().contains("ip saddr 203.0.113.9 drop"), "what was there before is left");
        drop(daemon);
        let told = running.give(host.order("off", "firewalld-drop", &srcip("203.0.113.8"), 600));
        assert_eq!(told.kind, OutcomeKind::Failed, "nobody is there to ask: {}", told.detail);
        running.responder.stop();
    });
}

#[test]
fn firewalld_asked_over_its_bus_holds_the_rules_and_gets_them_back_after_a_reload() {
    firewalld_keeps_the_rules(true);
}

#[test]
fn firewalld_asked_by_its_tool_holds_the_rules_and_gets_them_back_after_a_reload() {
    firewalld_keeps_the_rules(false);
}

/// Answers one connection as inetd would, through the real wrapper, which reads the lists of `etc`.
fn wrapped(etc: &Path, listener: &TcpListener) {
    let (stream, _) = listener.accept().unwrap();
    let script = format!("mount --bind {} /etc && exec -a /bin/echo /usr/sbin/tcpd served", etc.display());
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", &script]);
    let input = std::os::fd::OwnedFd::from(stream.try_clone().unwrap());
    let output = std::os::fd::OwnedFd::from(stream);
    command.stdin(input).stdout(output).stderr(Stdio::null()).status().unwrap();
}

/// What a client with that address gets from the service.
fn served(etc: &Path, from: &str, to: &str) -> bool {
    let listener = TcpListener::bind(SocketAddr::new(to.parse().unwrap(), 0)).unwrap();
    let there = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let service = scope.spawn(|| wrapped(etc, &listener));
        let domain = if there.is_ipv6() {
            rustix::net::AddressFamily::INET6
        } else {
            rustix::net::AddressFamily::INET
        };
        let socket = rustix::net::socket(domain, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0)).unwrap();
        rustix::net::connect(&socket, &there).unwrap();
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = String::new();
        // A refused client may see a reset.
        let _ = stream.read_to_string(&mut text);
        service.join().unwrap();
        text.contains("served")
    })
}

#[test]
fn a_wrapped_service_turns_a_denied_host_away_until_it_is_let_in_again() {
    if !tools(&[("tcpd", "tcpd"), ("unshare", "util-linux"), ("ip", "iproute2")]) {
        return;
    }
    isolated(|| {
        ip("link set lo up");
        // The clients' addresses belong to another interface than the guards look at: they are ours only as sources.
        for address in ["203.0.113.1/32", "203.0.113.7/32", "203.0.113.70/32"] {
            ip(&format!("addr add {address} dev lo"));
        }
        for address in ["2001:db8::1/128", "2001:db8::7/128", "2001:db8::70/128"] {
            ip(&format!("addr add {address} dev lo nodad"));
        }
        let host = Host::new();
        let etc = host.path("host/etc");
        for (name, text) in [("hosts.allow", ""), ("hosts.deny", "# ours\nALL:198.51.100.1\n"), ("hosts", "")]
        {
            std::fs::write(etc.join(name), text).unwrap();
        }
        // Side by side, since the wrapper lets a denied client wait for some seconds.
        let both = |four: &str, six: &str| {
            std::thread::scope(|scope| {
                let four = scope.spawn(|| served(&etc, four, "203.0.113.1"));
                (served(&etc, six, "2001:db8::1"), four.join().unwrap())
            })
        };
        let attackers = || both("203.0.113.7", "2001:db8::7");
        assert_eq!(attackers(), (true, true), "the service works at all");
        // On the machine itself they would be its own addresses: the responder looks from another network.
        let (orders, results) = std::sync::mpsc::channel::<&str>();
        let (done, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let host = &host;
            scope.spawn(move || {
                tld_sys::net_namespace::enter_private().unwrap();
                let running = host.start();
                for order in results {
                    match order {
                        "lift" => {
                            running.responder.revert(tld_respond::RevertSelector::All);
                            for _ in 0..2 {
                                assert_eq!(running.next().kind, OutcomeKind::Reverted);
                            }
                        }
                        address => running.applied(host.order(address, "host-deny", &srcip(address), 600)),
                    }
                    done.send(()).unwrap();
                }
                running.responder.stop();
            });
            let tell = |order: &'static str| {
                orders.send(order).unwrap();
                ended.recv_timeout(Duration::from_secs(60)).unwrap();
            };
            tell("203.0.113.7");
            tell("2001:db8::7");
            assert_eq!(attackers(), (false, false), "denied");
            assert_eq!(both("203.0.113.70", "2001:db8::70"), (true, true), "their neighbours are not");
            let file = etc.join("hosts.deny");
            in_time("healed within three seconds", || {
                std::fs::write(&file, "# ours\nALL:198.51.100.1\n").unwrap();
                let begin = SystemClock.boot();
                eventually("healed", || std::fs::read_to_string(&file).unwrap().matches("ALL:").count() == 3);
                SystemClock.boot() - begin < Duration::from_secs(3)
            });
            assert_eq!(attackers(), (false, false), "denied again");
            tell("lift");
            assert_eq!(attackers(), (true, true), "let in again");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "# ours\nALL:198.51.100.1\n");
            drop(orders);
        });
    });
}

/// Another host at the other end of a cable, with these addresses, that answers on port 7777 of each until the program ends.
fn other_host(addresses: &'static [&'static str]) {
    let (told, tells) = std::sync::mpsc::channel();
    let (connected, cable) = std::sync::mpsc::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        tld_sys::net_namespace::enter_private().unwrap();
        told.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        cable.recv().unwrap();
        ip("link set d1 up");
        for address in addresses {
            if address.contains(':') {
                ip(&format!("addr add {address}/64 dev d1 nodad"));
            } else {
                ip(&format!("addr add {address}/24 dev d1"));
            }
        }
        for address in addresses {
            let listener = TcpListener::bind(SocketAddr::new(address.parse().unwrap(), 7777)).unwrap();
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
        ready.send(()).unwrap();
    });
    let thread = tells.recv_timeout(Duration::from_secs(20)).unwrap();
    ip(&format!("link add d0 type veth peer name d1 netns {thread}"));
    connected.send(()).unwrap();
    is_ready.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn an_isolated_host_talks_to_its_managers_and_to_nobody_else() {
    if !tools(&[("ip", "iproute2"), ("nft", "nftables")]) {
        return;
    }
    isolated(|| {
        ip("link set lo up");
        other_host(&["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]);
        ip("link set d0 up");
        ip("addr add 192.0.2.10/24 dev d0");
        ip("addr add 2001:db8::10/64 dev d0 nodad");
        let reaches = |address: &str, patience: u64| {
            let there = SocketAddr::new(address.parse().unwrap(), 7777);
            std::net::TcpStream::connect_timeout(&there, Duration::from_secs(patience)).is_ok()
        };
        let (managers, others) = (["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]);
        eventually("both families work", || managers.iter().chain(&others).all(|one| reaches(one, 5)));
        let mut host = Host::new();
        host.places.managers = managers.iter().map(|one| one.parse().unwrap()).collect();
        let running = host.start();
        running.applied(host.order("a", "isolate-host", "{}", 600));
        let alone =
            || managers.iter().all(|one| reaches(one, 20)) && !others.iter().any(|one| reaches(one, 1));
        assert!(alone(), "isolated");
        let nft = |args: &[&str]| said(Command::new("nft").args(args)).0;
        assert!(nft(&["delete", "table", "inet", "threatlockdown_isolation"]), "tampered");
        eventually("healed", || nft(&["list", "table", "inet", "threatlockdown_isolation"]));
        assert!(alone(), "isolated again");
        eventually("recorded", || running.responder.active().len() == 1);
        running.lifted();
        assert!(others.iter().all(|one| reaches(one, 20)), "free again");
        running.responder.stop();
    });
}

/// What the account tools say where `etc` is the directory of accounts.
fn with_accounts(etc: &Path, command: &str) -> String {
    let script = format!("mount --bind {} /etc && {command}", etc.display());
    said(Command::new("unshare").args(["-m", "sh", "-c", &script])).1
}

#[test]
fn the_systems_own_tools_see_an_account_locked_expired_and_as_before() {
    if !tools(&[("usermod", "passwd"), ("passwd", "passwd"), ("chage", "passwd"), ("unshare", "util-linux")])
    {
        return;
    }
    isolated(|| {
        let host = Host::new();
        let etc = host.path("host/etc");
        let hash =
            "$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6WouIL9AjRbLCelDCy.g.";
        for (name, text) in [
            (
                "passwd",
                "root:x:0:0::/root:/bin/sh\nbob:x:1500:1500::/:/bin/sh\neve:x:1501:1501::/:/bin/sh\n"
                    .to_owned(),
            ),
            ("group", "root:x:0:\nbob:x:1500:\neve:x:1501:\n".into()),
            (
                "shadow",
                format!(
                    "root:*:19000:0:99999:7:::\nbob:{hash}:19000:0:99999:7::30000:\neve:!{hash}:19000:0:99999:7:::\n"
                ),
            ),
        ] {
            std::fs::write(etc.join(name), text).unwrap();
        }
        std::fs::create_dir_all(etc.join("pam.d")).unwrap();
        std::fs::copy("/etc/login.defs", etc.join("login.defs")).unwrap();
        let before = std::fs::read_to_string(etc.join("shadow")).unwrap();
        let status = |user: &str| with_accounts(&etc, &format!("passwd -S {user}"));
        let state = |user: &str| status(user).split(' ').nth(1).unwrap_or_default().to_owned();
        assert_eq!((state("bob").as_str(), state("eve").as_str()), ("P", "L"), "{}", status("bob"));
        let running = host.start();
        let user = |name: &str| format!(r#"{{"dstuser":"{name}"}}"#);
        let mut bob = host.order("bob", "disable-account", &user("bob"), 600);
        bob.extra_args = vec!["expire".into()];
        running.applied(bob);
        running.applied(host.order("eve", "disable-account", &user("eve"), 600));
        assert_eq!((state("bob").as_str(), state("eve").as_str()), ("L", "L"));
        let expires = with_accounts(&etc, "LC_ALL=C chage -l bob");
        assert!(expires.contains("Account expires") && expires.contains("Jan 02, 1970"), "{expires}");
        // The tool's own word: on a busy machine the account may be locked again before anybody looks.
        let tampered = with_accounts(&etc, "usermod --unlock bob && echo unlocked");
        assert_eq!(tampered.trim(), "unlocked");
        eventually("healed", || state("bob") == "L");
        eventually("recorded", || running.responder.active().len() == 2);
        running.responder.revert(tld_respond::RevertSelector::All);
        for _ in 0..2 {
            let told = running.next();
            assert_eq!(told.kind, OutcomeKind::Reverted, "{}", told.detail);
        }
        assert_eq!(
            (state("bob").as_str(), state("eve").as_str()),
            ("P", "L"),
            "what was locked before stays locked"
        );
        assert_eq!(std::fs::read_to_string(etc.join("shadow")).unwrap(), before);
        running.responder.stop();
    });
}

#[test]
fn a_restart_is_handed_to_the_installations_control_program() {
    if Path::new("/run/systemd/system").is_dir() {
        // Where a service manager runs it is asked, and this test must not restart anything of the machine.
        return;
    }
    isolated(|| {
        let host = Host::new();
        let control: PathBuf = host.path("bin/wazuh-control");
        std::fs::create_dir(host.path("bin")).unwrap();
        let running = host.start();
        let told = running.give(host.order("a", "restart-wazuh", "{}", 0));
        assert_eq!(told.kind, OutcomeKind::Unsupported, "{}", told.detail);
        let script = "#!/bin/sh\necho \"$0 $@\" > asked\n";
        tld_sys::durable::replace(&control, script.as_bytes(), 0o770).unwrap();
        let told = running.give(host.order("b", "restart-wazuh", "{}", 0));
        assert!(told.kind == OutcomeKind::Refused && told.detail.contains("chmod 750"), "{}", told.detail);
        tld_sys::durable::replace(&control, script.as_bytes(), 0o750).unwrap();
        let told = running.give(host.order("c", "restart-wazuh", "{}", 0));
        assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
        assert_eq!(std::fs::read_to_string(host.path("asked")).unwrap(), "bin/wazuh-control restart\n");
        running.responder.stop();
    });
}
