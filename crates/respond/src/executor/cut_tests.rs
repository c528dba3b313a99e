//! The real kernel and real connections, in a network of the test's own: a block starves what is established, and
//! ends it where that is asked for.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use tld_model::{OrderOptions, OutcomeKind};
use tld_sys::child::{Spec, run_capture};
use tld_sys::clock::SystemClock;

use super::tests::order;
use crate::{Responder, RevertSelector, Setup, kernel};

fn tool(path: &str, args: &[&str]) -> bool {
    let path = std::path::Path::new(path);
    let spec = Spec { args: args.iter().map(Into::into).collect(), ..Spec::new(path) };
    let ended = run_capture(&spec, b"", 4_096, Duration::from_secs(20));
    ended.is_ok_and(|ended| ended.status.is_some_and(|status| status.success()))
}

fn ip(args: &[&str]) -> bool {
    tool("/usr/sbin/ip", args)
}

/// A connection that comes from `source`, an address of this network that nothing protects here.
fn connect(source: IpAddr, listener: &TcpListener) -> (TcpStream, TcpStream) {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let client = socket(family, SocketType::STREAM, None).unwrap();
    bind(&client, &std::net::SocketAddr::new(source, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    connect(&client, &std::net::SocketAddr::new(to.ip().to_canonical(), to.port())).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_canonical(), source);
    (TcpStream::from(client), server)
}

/// Waits long for what must come, and a moment for what must not.
fn passes(client: &mut TcpStream, server: &mut TcpStream, must: bool) -> std::io::Result<()> {
    let patience = if must { Duration::from_secs(20) } else { Duration::from_millis(400) };
    server.set_read_timeout(Some(patience)).unwrap();
    client.write_all(b"x")?;
    server.read_exact(&mut [0])
}

fn try_it(source: &str, listen: &str) {
    let source: IpAddr = source.parse().unwrap();
    let listener = TcpListener::bind(listen).unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("active-response/bin")).unwrap();
    std::fs::create_dir_all(home.path().join("logs")).unwrap();
    let own = std::env::current_exe().unwrap();
    std::fs::copy(own, home.path().join("active-response/bin/firewall-drop")).unwrap();
    let mut setup = Setup::new(home.path().into(), Arc::new(SystemClock), Arc::new(|_| {}));
    setup.self_hash = Some(crate::self_hash().unwrap());
    let (sender, outcomes) = channel();
    let firewall = kernel::open("threatlockdown").unwrap();
    let responder = Responder::start_with(setup, Some(firewall), None, Box::new(Vec::new), sender).unwrap();
    let next = || outcomes.recv_timeout(Duration::from_secs(20)).unwrap();

    let (mut client, mut server) = connect(source, &listener);
    passes(&mut client, &mut server, true).unwrap();
    responder.submit(order("starve", &source.to_string(), 600)).unwrap();
    assert_eq!(next().kind, OutcomeKind::Applied);
    let starved = passes(&mut client, &mut server, false).unwrap_err();
    assert_eq!(starved.kind(), std::io::ErrorKind::WouldBlock, "packets are dropped, nothing is reset");
    responder.revert(RevertSelector::All);
    assert_eq!(next().kind, OutcomeKind::Reverted);

    let (mut client, mut server) = connect(source, &listener);
    passes(&mut client, &mut server, true).unwrap();
    let options = OrderOptions { cut_connections: true, ..OrderOptions::default() };
    responder.submit(tld_model::Order { options, ..order("cut", &source.to_string(), 600) }).unwrap();
    let told = next();
    assert_eq!(told.kind, OutcomeKind::Applied);
    // The first connection is still there too: starved, then ended with the other.
    assert!(told.detail.contains("; 2 live sockets ended"), "{}", told.detail);
    assert!(
        !told.detail.contains(" 0 flows ended") && told.detail.contains("flows ended"),
        "{}",
        told.detail
    );
    let cut = passes(&mut client, &mut server, false).unwrap_err();
    assert_ne!(cut.kind(), std::io::ErrorKind::WouldBlock, "{cut}");
    responder.revert(RevertSelector::All);
    assert_eq!(next().kind, OutcomeKind::Reverted);
    responder.stop();
}

#[test]
fn an_established_connection_starves_and_is_cut_if_asked() {
    let tried = std::thread::scope(|scope| {
        let work = || {
            if tld_sys::net_namespace::enter_private().is_err() || kernel::open("threatlockdown").is_err() {
                return false;
            }
            let addresses = ip(&["address", "add", "10.9.0.2/32", "dev", "lo"])
                && ip(&["-6", "address", "add", "fd00::2/128", "dev", "lo", "nodad"]);
            // Tracking only begins where a rule asks for it.
            let tracked = "add table inet t\nadd chain inet t c { type filter hook input priority 0; }\n\
                           add rule inet t c ct state invalid drop\n";
            let nft = tool("/usr/sbin/nft", &[tracked]);
            if !addresses || !nft {
                return false;
            }
            try_it("10.9.0.2", "127.0.0.1:0");
            // A socket that serves both families sees the same peer as a mapped address.
            try_it("10.9.0.2", "[::ffff:127.0.0.1]:0");
            try_it("fd00::2", "[::1]:0");
            true
        };
        scope.spawn(work).join().expect("the test panicked")
    });
    if !tried {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "root, nftables, ip and nft are required");
        println!("skipped: needs root, nftables, ip and nft in a private network namespace");
    }
}
