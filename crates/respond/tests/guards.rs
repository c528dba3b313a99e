//! Whom this endpoint never blocks, in a network of its own: each refusal is an outcome that names the reason, and what
//! changes while the responder runs counts soon after.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test program: it reports by failing")]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;

use common::{Host, Running, eventually, isolated, skipped, srcip};
use tld_model::{Outcome, OutcomeKind, Zone};
use tld_respond::{Responder, Setup, self_hash};
use tld_sys::clock::SystemClock;

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(done.success(), "ip {args}");
}

fn start(host: &Host) -> Running {
    let mut setup = Setup::new(host.home.path().into(), Arc::new(SystemClock), Arc::new(|_| {}));
    setup.zone = Zone::utc();
    setup.self_hash = Some(self_hash().unwrap());
    setup.places = host.places.clone();
    setup.protected = vec!["203.0.113.128/25".parse().unwrap(), "2001:db8:7::/48".parse().unwrap()];
    setup.managers = ["192.0.2.200", "2001:db8:9::1", "no.such.name.invalid"].map(String::from).to_vec();
    let (sender, outcomes) = channel();
    Running { responder: Responder::start(setup, sender).unwrap(), outcomes }
}

fn network() {
    ip("link set lo up");
    ip("link add d0 type veth peer name d1");
    ip("link set d1 up");
    ip("link set d0 up");
    for address in ["192.0.2.10/24", "2001:db8::10/64"] {
        ip(&format!("addr add {address} dev d0"));
    }
    ip("route add default via 192.0.2.254");
    ip("-6 route add default via 2001:db8::1");
}

#[test]
fn every_guard_refuses_with_its_reason_and_nobody_else_is_spared() {
    if Command::new("ip").arg("-V").output().is_err() {
        return skipped("ip (package iproute2)");
    }
    isolated(|| {
        network();
        let host = Host::new();
        let running = start(&host);
        let mut number = 0;
        let mut give = |name: &str, address: &str| -> Outcome {
            number += 1;
            running.give(host.order(&format!("o{number}"), name, &srcip(address), 60))
        };
        for (address, reason) in [
            ("192.0.2.10", "an address of this host"),
            ("2001:db8::10", "an address of this host"),
            ("::ffff:192.0.2.10", "an address of this host"),
            ("192.0.2.254", "a gateway of this host"),
            ("2001:db8::1", "a gateway of this host"),
            ("192.0.2.200", "a manager of this host"),
            ("2001:db8:9::1", "a manager of this host"),
            ("203.0.113.200", "protected by the configuration (203.0.113.128/25)"),
            ("2001:db8:7::5", "protected by the configuration (2001:db8:7::/48)"),
            ("127.0.0.5", "loopback"),
            ("::1", "loopback"),
        ] {
            for name in ["firewall-drop", "host-deny", "route-null", "ip-customblock"] {
                let told = give(name, address);
                assert_eq!(told.kind, OutcomeKind::Refused, "{name} {address}: {}", told.detail);
                assert!(told.detail.contains(reason), "{name} {address}: {}", told.detail);
            }
        }
        assert!(!host.places.hosts_deny.exists() && !host.places.ipblock.exists());
        let log = host.log();
        assert!(
            log.contains(" active-response/bin/host-deny: Refused: 192.0.2.200 is a manager of this host\n"),
            "{log}"
        );
        assert_eq!(give("ip-customblock", "203.0.113.7").kind, OutcomeKind::Applied);
        running.lifted();
        ip("addr add 198.51.100.77/24 dev d0");
        // Whichever order comes before the next look is carried out, and lifted again.
        let mut told = give("ip-customblock", "198.51.100.77");
        let end = tld_sys::clock::Deadline::after(std::time::Duration::from_secs(20));
        while told.kind != OutcomeKind::Refused {
            assert!(!end.passed(), "{}", told.detail);
            running.lifted();
            std::thread::sleep(std::time::Duration::from_millis(200));
            told = give("ip-customblock", "198.51.100.77");
        }
        assert!(told.detail.contains("an address of this host"), "{}", told.detail);
        eventually("nothing is left", || running.responder.active().is_empty());
        running.responder.stop();
    });
}

#[test]
fn an_executable_that_another_daemon_starts_spares_the_manager_too() {
    isolated(|| {
        let host = Host::new();
        std::fs::create_dir(host.path("etc")).unwrap();
        let conf = "<ossec_config><client><server><address>192.0.2.200</address></server></client>\
            <active-response><protected>203.0.113.0/24</protected></active-response></ossec_config>";
        std::fs::write(host.path("etc/ossec.conf"), conf).unwrap();
        for address in ["192.0.2.200", "203.0.113.9", "127.0.0.1"] {
            let input = format!(
                r#"{{"version":1,"origin":{{}},"command":"add","parameters":{{"extra_args":[],"alert":{{"data":{{"srcip":"{address}"}}}}}}}}"#
            ) + "\n";
            let mut output = Vec::new();
            let status = tld_respond::multicall::run_script_at(
                "host-deny",
                host.home.path(),
                host.places.clone(),
                &mut input.as_bytes(),
                &mut output,
            );
            assert_eq!((status, output.as_slice()), (255, &b""[..]), "{address}");
        }
        let log = host.log();
        assert!(log.contains("host-deny: Refused: 192.0.2.200 is a manager of this host\n"), "{log}");
    });
}
