//! Addresses that no order may block on this endpoint: loopback, its own addresses, its gateways and resolvers, its
//! managers, the hosts that administrators are logged in from, and what the operator lists as `protected`. The live
//! values are read again every few seconds by a thread of its own, which also looks names up.
//! Invariant: a check never waits for the system, and a name that cannot be looked up now keeps its last addresses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_pattern::Network;

/// A network with the reason why it is protected.
pub(crate) type Protected = (Network, &'static str);

/// Reads the live part of the protected set.
pub(crate) type Probe = Box<dyn Fn() -> Vec<Protected> + Send>;

/// The protected set.
#[derive(Debug)]
pub(crate) struct Guard {
    configured: Vec<Network>,
    live: Arc<RwLock<Live>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Live {
    system: Vec<Protected>,
    reach: Reach,
}

/// What a host must reach to be lifted out of isolation from afar.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Addresses of managers.
    pub(crate) managers: Vec<IpAddr>,
    /// Names of managers that have no address yet.
    pub(crate) unknown: Vec<String>,
    /// Name servers, if a manager is known by its name.
    pub(crate) resolvers: Vec<IpAddr>,
}

/// The managers' addresses: those written as such at once, those behind names as soon as they are known.
#[derive(Debug)]
struct Managers {
    fixed: Vec<IpAddr>,
    names: Vec<String>,
    known: HashMap<String, Vec<IpAddr>>,
}

impl Managers {
    fn of(configured: &[String]) -> Self {
        let parsed = |text: &String| text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        Self {
            fixed: configured.iter().filter_map(parsed).collect(),
            names: configured.iter().filter(|text| parsed(text).is_none()).cloned().collect(),
            known: HashMap::new(),
        }
    }

    fn look_up(&mut self) {
        for name in &self.names {
            // The port only fills the form.
            let Ok(found) = (name.as_str(), 1514).to_socket_addrs() else { continue };
            let found: Vec<IpAddr> =
                found.map(|address| address.ip().to_canonical()).take(MOST_PER_NAME).collect();
            if !found.is_empty() {
                self.known.insert(name.clone(), found);
            }
        }
    }

    fn reach(&self) -> Reach {
        let mut resolvers = Vec::new();
        if !self.names.is_empty() {
            resolvers = tld_sys::host::resolvers();
            if resolvers.iter().any(IpAddr::is_loopback) {
                resolvers.extend(tld_sys::host::upstream_resolvers());
            }
            resolvers.retain(|address| !is_any(*address) && !address.is_loopback());
        }
        let unknown = self.names.iter().filter(|name| !self.known.contains_key(*name)).cloned().collect();
        Reach { managers: self.addresses(), unknown, resolvers }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let mut all = self.fixed.clone();
        all.extend(self.known.values().flatten());
        all.retain(|address| !is_any(*address) && !address.is_loopback());
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Guard {
    /// Reads the live values once, then keeps them fresh.
    pub(crate) fn start(
        configured: Vec<Network>,
        managers: &[String],
        probe: Probe,
    ) -> std::io::Result<Self> {
        let mut managers = Managers::of(managers);
        let live = Live { system: probe(), reach: managers.reach() };
        let live = Arc::new(RwLock::new(live));
        let (stop, stopped) = channel::<()>();
        let shared = Arc::clone(&live);
        let work = move || {
            let mut round = 0_u32;
            loop {
                // Looking a name up may take long, and its answer holds for a while.
                if round.is_multiple_of(LOOK_UP_ROUNDS) {
                    managers.look_up();
                }
                round = round.wrapping_add(1);
                let fresh = Live { system: probe(), reach: managers.reach() };
                *shared.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                if !matches!(stopped.recv_timeout(REFRESH), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("guard".into()).spawn(work)?;
        Ok(Self { configured, live, stop: Some(stop), thread: Some(thread) })
    }

    /// What is known now, for a process that looks once. Names count that are found soon.
    pub(crate) fn once(configured: Vec<Network>, managers: &[String]) -> Self {
        let managers = Managers::of(managers);
        let fixed = managers.reach();
        let (found, answer) = channel();
        let work = move || {
            let mut managers = managers;
            managers.look_up();
            let _ = found.send(managers.reach());
        };
        // A daemon waits for this process: a name server that is silent must not hold it.
        let started = std::thread::Builder::new().name("look-up".into()).spawn(work);
        let looked = started.ok().and_then(|_| answer.recv_timeout(LOOK_UP_ONCE).ok());
        let live = Live { system: live(), reach: looked.unwrap_or(fixed) };
        Self { configured, live: Arc::new(RwLock::new(live)), stop: None, thread: None }
    }

    /// What an isolated host must reach, as far as it is known now.
    pub(crate) fn reach(&self) -> Reach {
        self.live.read().unwrap_or_else(PoisonError::into_inner).reach.clone()
    }

    /// Why `address` must not be blocked; none when it may be.
    pub(crate) fn objection(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if let Some(objection) = standing(&self.configured, address) {
            return Some(objection);
        }
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if live.reach.managers.contains(&address) {
            return Some(format!("{address} is a manager of this host"));
        }
        live.system
            .iter()
            .find(|(network, _)| network.contains(address))
            .map(|(_, why)| format!("{address} is {why}"))
    }
}

/// The objections that hold on every host with this configuration, whatever its addresses are.
pub(crate) fn standing(configured: &[Network], address: IpAddr) -> Option<String> {
    let address = address.to_canonical();
    if address.is_loopback() {
        return Some(format!("{address} is loopback"));
    }
    if address.is_unspecified() || address == IpAddr::V4(Ipv4Addr::BROADCAST) || address.is_multicast() {
        return Some(format!("{address} is no address of a host"));
    }
    let network = configured.iter().find(|network| network.contains(address))?;
    Some(format!("{address} is protected by the configuration ({network})"))
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The part of the protected set that the running system tells.
pub(crate) fn live() -> Vec<Protected> {
    let sources: [(Vec<IpAddr>, &'static str); 4] = [
        (tld_sys::host::own_addresses(), "an address of this host"),
        (tld_sys::host::gateways(), "a gateway of this host"),
        (tld_sys::host::resolvers(), "a name server of this host"),
        (crate::sessions::administrators(), "where an administrator is logged in from"),
    ];
    let every = sources.into_iter().flat_map(|(found, why)| found.into_iter().map(move |one| (one, why)));
    every
        .filter(|(address, _)| !is_any(*address))
        .map(|(address, why)| (Network::host(address), why))
        .collect()
}

fn is_any(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

const REFRESH: Duration = Duration::from_secs(3);
/// Names are looked up once in so many rounds.
const LOOK_UP_ROUNDS: u32 = 10;
const LOOK_UP_ONCE: Duration = Duration::from_secs(2);
const MOST_PER_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(configured: &[&str], live: Vec<Protected>) -> Guard {
        let configured = configured.iter().map(|text| text.parse().unwrap()).collect();
        let managers =
            ["192.0.2.77", "::ffff:192.0.2.78", "localhost", "no.such.name.invalid"].map(String::from);
        Guard::start(configured, &managers, Box::new(move || live.clone())).unwrap()
    }

    #[test]
    fn what_the_system_tells_is_read_again() {
        let now = Arc::new(RwLock::new(Vec::<Protected>::new()));
        let shared = Arc::clone(&now);
        let guard = Guard::start(vec![], &[], Box::new(move || shared.read().unwrap().clone())).unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(guard.objection(address), None);
        now.write().unwrap().push((Network::host(address), "a gateway of this host"));
        let end = tld_sys::clock::Deadline::after(Duration::from_secs(20));
        while guard.objection(address).is_none() {
            assert!(!end.passed(), "never read again");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_name_is_looked_up_and_keeps_its_addresses_when_it_cannot_be() {
        let mut managers = Managers::of(&["manager.example".into()]);
        managers.known.insert("manager.example".into(), vec!["192.0.2.5".parse().unwrap()]);
        managers.names = vec!["manager.example.invalid".into()];
        managers.look_up();
        assert_eq!(managers.addresses(), ["192.0.2.5".parse::<IpAddr>().unwrap()]);
        let mut local = Managers::of(&["localhost".into()]);
        local.look_up();
        assert!(!local.known.is_empty() && local.addresses().is_empty());
    }

    #[test]
    fn the_objection_names_the_guard() {
        let gateway = Network::host("192.0.2.1".parse().unwrap());
        let guard = guard(&["198.51.100.0/24"], vec![(gateway, "a gateway of this host")]);
        let why = |text: &str| guard.objection(text.parse().unwrap());
        assert_eq!(why("192.0.2.1").unwrap(), "192.0.2.1 is a gateway of this host");
        assert!(why("198.51.100.77").unwrap().contains("protected by the configuration"));
        assert!(why("127.9.9.9").unwrap().contains("loopback"));
        assert!(why("::ffff:127.0.0.1").unwrap().contains("loopback"));
        assert!(why("255.255.255.255").is_some() && why("224.0.0.1").is_some() && why("::").is_some());
        assert_eq!(why("192.0.2.77").unwrap(), "192.0.2.77 is a manager of this host");
        assert!(why("192.0.2.78").is_some());
        assert_eq!(why("203.0.113.7"), None);
        assert_eq!(guard.reach().managers.len(), 2, "loopback is no way to a manager");
    }
}
