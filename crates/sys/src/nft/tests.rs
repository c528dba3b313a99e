use super::*;
use std::path::Path;

use crate::child::{Spec, run_capture};

const TABLE: &str = "tld-test";
const LONG: Duration = Duration::from_secs(20);
/// For what must not happen.
const A_MOMENT: Duration = Duration::from_millis(300);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// Runs `test` with a firewall of its own, or says why not.
fn with_firewall(test: impl FnOnce(Firewall) + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(e) = crate::net_namespace::enter_private() {
                assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no private network: {e}");
                println!("skipped: no private network: {e}");
                return;
            }
            match Firewall::open() {
                Ok(firewall) => test(firewall),
                Err(e) => {
                    assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no firewall: {e}");
                    println!("skipped: no firewall: {e}");
                }
            }
        });
    });
}

/// Runs the `nft` program in this thread's network; `None` if it is not installed.
fn nft(arguments: &[&str]) -> Option<String> {
    let program = Path::new("/usr/sbin/nft");
    if !program.exists() {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "nft is not installed");
        println!("skipped: nft is not installed");
        return None;
    }
    let mut spec = Spec::new(program);
    spec.args = arguments.iter().map(Into::into).collect();
    let captured = run_capture(&spec, b"", 1 << 20, LONG).unwrap();
    assert!(captured.status.unwrap().success(), "{}", String::from_utf8_lossy(&captured.stderr));
    Some(String::from_utf8(captured.stdout).unwrap())
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = crate::clock::Deadline::after(LONG);
    while !done() {
        assert!(!deadline.passed());
        crate::ready::readable(&[], Duration::from_millis(20)).unwrap();
    }
}

#[test]
fn a_blocked_address_is_found_with_its_lease_in_both_families() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        let (v4, v6, forever) = (ip("203.0.113.7"), ip("2001:db8::7"), ip("203.0.113.8"));
        fw.block(TABLE, &[(v4, secs(100)), (v6, secs(200)), (forever, None)]).unwrap();
        let left = fw.lookup(TABLE, v4).unwrap().unwrap().remaining.unwrap();
        assert!((95..=100).contains(&left.as_secs()), "{left:?}");
        let left = fw.lookup(TABLE, v6).unwrap().unwrap().remaining.unwrap();
        assert!((195..=200).contains(&left.as_secs()), "{left:?}");
        assert_eq!(fw.lookup(TABLE, forever).unwrap(), Some(Element { remaining: None }));
        assert_eq!(fw.lookup(TABLE, ip("203.0.113.9")).unwrap(), None);
        assert_eq!(fw.list(TABLE).unwrap().len(), 3);
    });
}

#[test]
fn a_mapped_address_is_blocked_as_the_ipv4_address_it_is() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        fw.block(TABLE, &[(ip("::ffff:203.0.113.7"), None)]).unwrap();
        assert!(fw.lookup(TABLE, ip("203.0.113.7")).unwrap().is_some());
        fw.unblock(TABLE, &[ip("::ffff:203.0.113.7")]).unwrap();
        assert!(fw.lookup(TABLE, ip("203.0.113.7")).unwrap().is_none());
    });
}

#[test]
fn the_kernel_ends_a_lease_by_itself() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        fw.block(TABLE, &[(ip("203.0.113.7"), Some(Duration::from_secs(2)))]).unwrap();
        assert!(fw.lookup(TABLE, ip("203.0.113.7")).unwrap().is_some());
        wait_until(|| fw.lookup(TABLE, ip("203.0.113.7")).unwrap().is_none());
    });
}

#[test]
fn even_the_shortest_lease_ends() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        fw.block(TABLE, &[(ip("203.0.113.7"), Some(Duration::ZERO))]).unwrap();
        wait_until(|| fw.lookup(TABLE, ip("203.0.113.7")).unwrap().is_none());
    });
}

#[test]
fn a_lease_can_be_extended_shortened_lifted_and_given() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        let address = ip("203.0.113.7");
        for (lease, least) in [(secs(10), 5), (secs(1000), 995), (secs(50), 45)] {
            fw.block(TABLE, &[(address, lease)]).unwrap();
            let left = fw.lookup(TABLE, address).unwrap().unwrap().remaining.unwrap();
            assert!(left <= lease.unwrap() && left.as_secs() >= least, "{left:?} of {lease:?}");
        }
        fw.block(TABLE, &[(address, None)]).unwrap();
        assert_eq!(fw.lookup(TABLE, address).unwrap().unwrap().remaining, None);
        fw.block(TABLE, &[(address, secs(50))]).unwrap();
        assert!(fw.lookup(TABLE, address).unwrap().unwrap().remaining.is_some());
    });
}

#[test]
fn lifting_works_also_for_what_is_not_blocked() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        fw.block(TABLE, &[(ip("203.0.113.7"), None), (ip("2001:db8::7"), secs(60))]).unwrap();
        fw.unblock(TABLE, &[ip("203.0.113.99"), ip("203.0.113.7"), ip("2001:db8::7")]).unwrap();
        assert_eq!(fw.list(TABLE).unwrap(), []);
    });
}

#[test]
fn ten_thousand_addresses_go_in_and_out_together() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        let v4 = (0..5000_u32).map(|i| (IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + i)), secs(3600)));
        let v6 =
            (0..5000_u128).map(|i| (IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) + i)), secs(3600)));
        let all: Vec<_> = v4.chain(v6).collect();
        let clock = crate::clock::SystemClock;
        let before = crate::clock::Clock::boot(&clock);
        fw.block(TABLE, &all).unwrap();
        println!("10,000 blocked in {:?}", crate::clock::Clock::boot(&clock) - before);
        assert_eq!(fw.list(TABLE).unwrap().len(), 10_000);
        fw.block(TABLE, &all).unwrap();
        assert_eq!(fw.list(TABLE).unwrap().len(), 10_000);
        let addresses: Vec<_> = all.iter().map(|(a, _)| *a).collect();
        fw.unblock(TABLE, &addresses).unwrap();
        assert_eq!(fw.list(TABLE).unwrap(), []);
    });
}

#[test]
fn more_than_one_transaction_holds_go_in_several() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        let all: Vec<_> = (0..40_000_u128)
            .map(|i| (IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) + i)), secs(3600)))
            .collect();
        fw.block(TABLE, &all).unwrap();
        assert_eq!(fw.list(TABLE).unwrap().len(), 40_000);
    });
}

#[test]
fn the_monitor_tells_when_it_lost_something() {
    with_firewall(|mut fw| {
        let mut monitor = Monitor::open(&[]).unwrap();
        monitor.shrink_for_test();
        fw.ensure(TABLE).unwrap();
        let all: Vec<_> =
            (0..5000_u32).map(|i| (IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + i)), secs(3600))).collect();
        for _ in 0..3 {
            fw.block(TABLE, &all).unwrap();
        }
        let mut seen = None;
        while seen != Some(Event::Overrun) {
            seen = Some(monitor.next(LONG).unwrap().unwrap());
        }
    });
}

#[test]
fn without_the_table_blocking_says_so_and_questions_find_nothing() {
    with_firewall(|mut fw| {
        assert!(!fw.exists(TABLE).unwrap());
        assert!(fw.block(TABLE, &[(ip("203.0.113.7"), None)]).unwrap_err().is_not_found());
        assert_eq!(fw.lookup(TABLE, ip("203.0.113.7")).unwrap(), None);
        assert_eq!(fw.list(TABLE).unwrap(), []);
        fw.delete_table(TABLE).unwrap();
        fw.ensure(TABLE).unwrap();
        assert!(fw.exists(TABLE).unwrap());
        fw.delete_table(TABLE).unwrap();
        assert!(!fw.exists(TABLE).unwrap());
    });
}

#[test]
fn ensuring_again_keeps_elements_does_not_double_rules_and_leaves_other_tables_alone() {
    with_firewall(|mut fw| {
        if nft(&["add", "table", "inet", "other"]).is_none() {
            return;
        }
        fw.ensure(TABLE).unwrap();
        fw.block(TABLE, &[(ip("203.0.113.7"), None)]).unwrap();
        nft(&["flush", "chain", "inet", TABLE, "prerouting"]);
        fw.ensure(TABLE).unwrap();
        fw.ensure(TABLE).unwrap();
        let text = nft(&["list", "table", "inet", TABLE]).unwrap();
        for line in [
            "type filter hook prerouting priority raw - 10; policy accept;",
            "ip saddr @blocked4 drop",
            "ip6 saddr @blocked6 drop",
            "ip saddr @nets4 drop",
            "ip6 saddr @nets6 drop",
            "ip saddr . tcp dport @ports4 drop",
            "ip saddr . udp dport @ports4 drop",
            "ip6 saddr . tcp dport @ports6 drop",
            "ip6 saddr . udp dport @ports6 drop",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{line} in {text}");
        }
        assert_eq!(text.matches("flags timeout").count(), 4, "{text}");
        assert_eq!(text.matches("flags interval,timeout").count(), 2, "{text}");
        assert!(text.contains("elements = { 203.0.113.7 }"), "{text}");
        fw.delete_table(TABLE).unwrap();
        assert!(nft(&["list", "tables"]).unwrap().contains("table inet other"));
    });
}

#[test]
fn networks_are_blocked_extended_and_lifted() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        let nets = [
            Net::new(ip("198.51.100.77"), 24).unwrap(),
            Net::new(ip("255.255.255.0"), 24).unwrap(),
            Net::new(ip("2001:db8:1::1"), 48).unwrap(),
        ];
        fw.block_nets(TABLE, &nets.map(|net| (net, secs(100)))).unwrap();
        fw.block_nets(TABLE, &nets.map(|net| (net, secs(1000)))).unwrap();
        if let Some(text) = nft(&["list", "table", "inet", TABLE]) {
            for part in ["198.51.100.0/24 timeout", "255.255.255.0", "2001:db8:1::/48 timeout", "16m40s"] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
        fw.unblock_nets(TABLE, &nets).unwrap();
        fw.unblock_nets(TABLE, &nets).unwrap();
        if let Some(text) = nft(&["list", "table", "inet", TABLE]) {
            assert!(!text.contains("elements"), "{text}");
        }
    });
}

#[test]
fn a_packet_from_a_blocked_address_is_dropped_and_passes_after_lifting() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let reaches = |span| std::net::TcpStream::connect_timeout(&to, span).is_ok();
        assert!(reaches(LONG));
        fw.block(TABLE, &[(ip("127.0.0.1"), secs(60))]).unwrap();
        assert!(!reaches(A_MOMENT));
        fw.unblock(TABLE, &[ip("127.0.0.1")]).unwrap();
        assert!(reaches(LONG));
        let net = Net::new(ip("127.0.0.1"), 8).unwrap();
        fw.block_nets(TABLE, &[(net, secs(60))]).unwrap();
        assert!(!reaches(A_MOMENT));
        fw.unblock_nets(TABLE, &[net]).unwrap();
        assert!(reaches(LONG));
    });
}

#[test]
fn a_blocked_port_is_dropped_for_tcp_and_udp_in_both_families_and_no_other_port_is() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        for text in ["127.0.0.1", "::1"] {
            let address = ip(text);
            let listening = [(); 2].map(|()| std::net::TcpListener::bind((address, 0)).unwrap());
            let [shut, open] = [0, 1].map(|n| listening[n].local_addr().unwrap());
            let mail = std::net::UdpSocket::bind(shut).unwrap();
            let sender = std::net::UdpSocket::bind((address, 0)).unwrap();
            let reaches = |to, span| std::net::TcpStream::connect_timeout(&to, span).is_ok();
            let posts = |span| {
                mail.set_read_timeout(Some(span)).unwrap();
                sender.send_to(b"x", shut).is_ok() && mail.recv(&mut [0]).is_ok()
            };
            assert!(reaches(shut, LONG) && reaches(open, LONG) && posts(LONG), "{text}");
            let spots = [shut.port(), 7].map(|port| Spot { address, port: Some(port) });
            fw.block_spots(TABLE, &spots.map(|spot| (spot, secs(60)))).unwrap();
            assert!(!reaches(shut, A_MOMENT) && reaches(open, LONG) && !posts(A_MOMENT), "{text}");
            let found = fw.lookup_all(TABLE, &[spots[0], address.into(), spots[1]]).unwrap();
            assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
            let listed = fw.list_spots(TABLE).unwrap().into_iter().map(|(spot, _)| spot);
            assert_eq!(listed.collect::<std::collections::BTreeSet<_>>(), spots.into_iter().collect());
            fw.unblock_spots(TABLE, &spots).unwrap();
            assert!(reaches(shut, LONG) && posts(LONG), "{text}");
        }
    });
}

#[test]
fn many_questions_are_answered_in_order_whatever_is_missing() {
    with_firewall(|mut fw| {
        fw.ensure(TABLE).unwrap();
        let spots: Vec<Spot> =
            (0..2_000_u32).map(|i| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + i)).into()).collect();
        let every_third: Vec<_> = spots.iter().step_by(3).map(|spot| (*spot, secs(100))).collect();
        fw.block_new(TABLE, &every_third).unwrap();
        fw.block_new(TABLE, &every_third[..10]).unwrap();
        let found = fw.lookup_all(TABLE, &spots).unwrap();
        assert!(found.iter().enumerate().all(|(n, element)| element.is_some() == (n % 3 == 0)));
    });
}

#[test]
fn the_monitor_sees_a_flush_by_others_and_not_our_own_changes() {
    with_firewall(|mut fw| {
        let mut monitor = Monitor::open(&[fw.port_id()]).unwrap();
        fw.ensure(TABLE).unwrap();
        fw.block(TABLE, &[(ip("203.0.113.7"), secs(60)), (ip("203.0.113.8"), None)]).unwrap();
        fw.unblock(TABLE, &[ip("203.0.113.8")]).unwrap();
        assert_eq!(monitor.next(Duration::from_millis(50)).unwrap(), None);

        if nft(&["delete", "element", "inet", TABLE, "blocked4", "{ 203.0.113.7 }"]).is_none() {
            return;
        }
        let spot = ip("203.0.113.7").into();
        let (table, set) = (TABLE.to_owned(), "blocked4".to_owned());
        assert_eq!(monitor.next(LONG).unwrap(), Some(Event::ElementGone { table, set, spot }));
        let Some(Event::Committed { process, .. }) = monitor.next(LONG).unwrap() else {
            panic!("the transaction's end is missing")
        };
        assert_eq!(process.as_deref(), Some("nft"));

        nft(&["flush", "ruleset"]);
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(Event::Committed { .. })) {
            seen.push(monitor.next(LONG).unwrap().unwrap());
        }
        assert!(seen.contains(&Event::TableGone(TABLE.to_owned())), "{seen:?}");
        assert!(seen.contains(&Event::SetGone { table: TABLE.to_owned(), set: "blocked4".to_owned() }));
        assert!(!fw.exists(TABLE).unwrap());
    });
}

#[test]
fn a_network_knows_its_bounds() {
    let net = Net::new(ip("198.51.100.77"), 24).unwrap();
    assert_eq!((net.first(), net.after_last()), (ip("198.51.100.0"), Some(ip("198.51.101.0"))));
    assert_eq!(Net::new(ip("255.255.255.255"), 32).unwrap().after_last(), None);
    assert_eq!(Net::new(ip("128.0.0.0"), 1).unwrap().after_last(), None);
    assert_eq!(Net::new(ip("::1"), 128).unwrap().after_last(), Some(ip("::2")));
    assert_eq!(Net::new(ip("1.2.3.4"), 0), None);
    assert_eq!(Net::new(ip("1.2.3.4"), 33), None);
    assert_eq!(Net::new(ip("::"), 129), None);
}
