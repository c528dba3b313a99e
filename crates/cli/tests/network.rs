//! A manager and three agents, all the real binary, on four hosts with cables: every location, cables pulled, both sides killed.
//! What the kernels hold and what the ledger says must agree in the end, for every order.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests start programs and may fail loudly"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use common::fleet::{Site, agent_home, start_agent};
use common::{Home, Host, Service, namespaces, stamp, until};
use tld_model::{OutcomeKind, Target};
use tld_server::dispatch::ledger::{Filter, Listed, State, list};

const LONG: Duration = Duration::from_secs(60);

/// One rule for each location, chosen by the user name that the attacker tries.
const RULES: &str = r#"<group name="local,">
<rule id="100901" level="8"><if_sid>5760</if_sid><match>for local from</match><description>l</description></rule>
<rule id="100902" level="8"><if_sid>5760</if_sid><match>for server from</match><description>s</description></rule>
<rule id="100903" level="8"><if_sid>5760</if_sid><match>for second from</match><description>d</description></rule>
<rule id="100904" level="8"><if_sid>5760</if_sid><match>for all from</match><description>a</description></rule>
<rule id="100905" level="8"><if_sid>5760</if_sid><match>for short from</match><description>b</description></rule>
</group>"#;

fn responses() -> String {
    let one = |rule: u32, location: &str, seconds: u32| {
        format!(
            "<active-response><command>firewall-drop</command><location>{location}</location>\
             <rules_id>{rule}</rules_id><timeout>{seconds}</timeout></active-response>\n"
        )
    };
    one(100_901, "local", 600)
        + &one(100_902, "server", 600)
        + &one(100_903, "defined-agent", 600).replace("<rules_id>", "<agent_id>002</agent_id><rules_id>")
        + &one(100_904, "all", 600)
        + &one(100_905, "local", 8)
}

struct Agent {
    host: Host,
    home: Home,
    service: Option<Service>,
}

struct Network {
    site: Site,
    manager: Host,
    agents: Vec<Agent>,
}

impl Network {
    /// Three agents, each on a cable of its own.
    fn new() -> (Self, Service) {
        let site = Site::new(&responses());
        fs::create_dir_all(site.home.at("etc/rules")).unwrap();
        fs::write(site.home.at("etc/rules/local_rules.xml"), RULES).unwrap();
        let manager = Host::new("manager");
        let hosts: Vec<_> = (1..=3).map(|n| cable(&manager, n)).collect();
        let service = site.start(Some(&manager), &[]);
        let mut network = Self { site, manager, agents: Vec::new() };
        for (n, host) in (1..).zip(hosts) {
            let home = agent_home(&format!("10.78.{n}.1"), &network.site, &format!("web-0{n}"), 2);
            let service = Some(start_agent(&home, Some(&host), &[]));
            let keys = format!("00{n} web-0{n} any ");
            until(LONG, "the agent has its files", || {
                home.read("etc/shared/ar.conf").contains("firewall-drop600")
            });
            assert!(home.read("etc/client.keys").starts_with(&keys));
            network.agents.push(Agent { host, home, service });
        }
        (network, service)
    }

    /// An attack that the first agent sees.
    fn attack(&self, name: &str, address: &str) {
        let line =
            format!("{} web01 sshd[9]: Failed password for {name} from {address} port 4 ssh2\n", stamp());
        self.agents[0].home.log(&line);
    }

    fn plug(&self, agent: usize, state: &str) {
        assert!(self.manager.ip(&["link", "set", &format!("cable{agent}"), state]));
    }

    /// Where the address is blocked: agents by number, 0 for the manager.
    fn blocked(&self, address: &str) -> BTreeSet<usize> {
        let address: IpAddr = address.parse().unwrap();
        let hosts = std::iter::once(&self.manager).chain(self.agents.iter().map(|agent| &agent.host));
        (0..).zip(hosts).filter(|(_, host)| host.blocked().contains(&address)).map(|(n, _)| n).collect()
    }

    #[track_caller]
    fn is_blocked(&self, address: &str, places: &[usize]) {
        let wanted: BTreeSet<_> = places.iter().copied().collect();
        until(LONG, &format!("{address} is blocked by {places:?} and no other"), || {
            self.blocked(address) == wanted
        });
    }

    /// The ledger's orders for an address.
    fn orders(&self, address: &str) -> Vec<Listed> {
        let target = Target::Address(address.parse().unwrap());
        let all = list(self.site.home.path.path(), &Filter { closed: 1_000, ..Filter::default() }).unwrap();
        all.into_iter().filter(|one| one.order.target == target).collect()
    }

    /// The ledger has exactly one order for each place, applied with proof.
    #[track_caller]
    fn is_told(&self, address: &str, places: &[u32]) {
        let wanted: Vec<_> = places.to_vec();
        let mut orders = Vec::new();
        until(LONG, &format!("{address} is told as applied by {places:?}, and nothing is open"), || {
            orders = self.orders(address);
            let applied = orders.iter().filter(|one| is(one, OutcomeKind::Applied));
            let mut agents: Vec<_> = applied.map(|one| one.agent.0).collect();
            agents.sort_unstable();
            agents == wanted && orders.iter().all(|one| one.outcome.is_some())
        });
        let applied = orders.iter().filter(|one| is(one, OutcomeKind::Applied));
        let proof =
            |one: &Listed| one.outcome.as_ref().and_then(|outcome| outcome.evidence.read_back.clone());
        assert!(applied.clone().all(|one| proof(one).is_some()), "each with its proof: {orders:?}");
        // An event whose taking a killed manager did not confirm is sent again, and so is its alert; the block is one.
        let mut others = orders.iter().filter(|one| !is(one, OutcomeKind::Applied));
        assert!(others.all(|one| is(one, OutcomeKind::AlreadyActive)), "{orders:?}");
    }
}

fn is(order: &Listed, kind: OutcomeKind) -> bool {
    order.outcome.as_ref().is_some_and(|outcome| outcome.kind == kind)
}

/// A host behind a cable of its own.
fn cable(manager: &Host, n: usize) -> Host {
    let host = Host::new(&format!("agent{n}"));
    let (end, near, far) = (format!("cable{n}"), format!("10.78.{n}.1/24"), format!("10.78.{n}.2/24"));
    assert!(manager.ip(&["link", "add", &end, "type", "veth", "peer", "name", "up0", "netns", &host.name]));
    for (host, link, address) in [(manager, end.as_str(), &near), (&host, "up0", &far)] {
        assert!(host.ip(&["addr", "add", address, "dev", link]));
        assert!(host.ip(&["link", "set", link, "up"]));
    }
    host
}

#[test]
fn every_location_is_carried_out_and_told_through_pulled_cables_and_killed_programs() {
    if !namespaces() {
        return;
    }
    let (mut network, mut manager) = Network::new();
    network.attack("local", "203.0.113.1");
    network.attack("server", "203.0.113.2");
    network.attack("second", "203.0.113.3");
    network.attack("all", "203.0.113.4");
    for (address, places) in
        [("203.0.113.1", &[1][..]), ("203.0.113.2", &[0]), ("203.0.113.3", &[2]), ("203.0.113.4", &[1, 2, 3])]
    {
        network.is_blocked(address, places);
        let agents: Vec<_> = places.iter().map(|place| u32::try_from(*place).unwrap()).collect();
        network.is_told(address, &agents);
    }

    // A cable is pulled before the order: the others block at once, this one when it is back.
    network.plug(3, "down");
    network.attack("all", "203.0.113.5");
    network.is_blocked("203.0.113.5", &[1, 2]);
    network.plug(3, "up");
    network.is_blocked("203.0.113.5", &[1, 2, 3]);
    network.is_told("203.0.113.5", &[1, 2, 3]);

    // A cable is pulled before the revert: it comes on time all the same, and is told later.
    let short = (60..65).map(|n| format!("203.0.113.{n}")).find(|address| {
        network.attack("short", address);
        let ended = || network.orders(address).iter().any(|one| one.ending.is_some());
        let mut seen = false;
        until(LONG, "a short block is seen, or over already", || {
            seen = network.blocked(address) == BTreeSet::from([1]);
            seen || ended()
        });
        seen
    });
    let short = short.expect("a short block is seen");
    network.plug(1, "down");
    network.is_blocked(&short, &[]);
    network.plug(1, "up");
    // An event whose taking the cut agent was not told comes again, and is answered again.
    until(LONG, "the revert is told", || {
        let orders = network.orders(&short);
        let ended =
            |one: &Listed| one.ending.as_ref().is_some_and(|ending| ending.kind == OutcomeKind::Reverted);
        orders.first().is_some_and(ended) && orders.iter().all(|one| one.state == State::Closed)
    });

    // The manager is killed between ledger and agent: the order is there and has not arrived.
    network.plug(2, "down");
    network.attack("second", "203.0.113.7");
    until(LONG, "the order is in the ledger", || network.orders("203.0.113.7").len() == 1);
    manager.kill();
    assert_eq!(network.blocked("203.0.113.7"), BTreeSet::new());
    // What its kernel had taken may still arrive; then the order comes twice and acts once.
    network.plug(2, "up");
    manager = network.site.start(Some(&network.manager), &[]);
    network.is_blocked("203.0.113.7", &[2]);
    network.is_told("203.0.113.7", &[2]);

    // An agent is killed: what it did stays, what it missed is done when it is back.
    network.agents[2].service.take().unwrap().kill();
    assert_eq!(network.blocked("203.0.113.5"), BTreeSet::from([1, 2, 3]));
    network.attack("all", "203.0.113.8");
    network.is_blocked("203.0.113.8", &[1, 2]);
    let third = &network.agents[2];
    let service = start_agent(&third.home, Some(&third.host), &[]);
    network.agents[2].service = Some(service);
    network.is_blocked("203.0.113.8", &[1, 2, 3]);
    network.is_told("203.0.113.8", &[1, 2, 3]);

    until(LONG, "every order has its outcome", || {
        let filter = Filter { closed: 1_000, ..Filter::default() };
        let all = list(network.site.home.path.path(), &filter).unwrap();
        all.iter().all(|one| one.outcome.is_some())
    });
    for agent in &mut network.agents {
        assert_eq!(agent.service.take().unwrap().stop(), Some(0));
    }
    assert_eq!(manager.stop(), Some(0));
}
