//! Addresses that no order may block on this endpoint: loopback, its own addresses, its gateways and resolvers, the
//! hosts that administrators are logged in from, and what the operator lists as `protected`. The live values are read again every few seconds by a thread of its own.
//! Invariant: a check never waits for the system.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    live: Arc<RwLock<Vec<Protected>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Reads the live values once, then keeps them fresh.
    pub(crate) fn start(configured: Vec<Network>, probe: Probe) -> std::io::Result<Self> {
        let live = Arc::new(RwLock::new(probe()));
        let (stop, stopped) = channel::<()>();
        let shared = Arc::clone(&live);
        let thread = std::thread::Builder::new().name("guard".into()).spawn(move || {
            while matches!(stopped.recv_timeout(REFRESH), Err(RecvTimeoutError::Timeout)) {
                let fresh = probe();
                *shared.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
        })?;
        Ok(Self { configured, live, stop: Some(stop), thread: Some(thread) })
    }

    /// Why `address` must not be blocked; none when it may be.
    pub(crate) fn objection(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if let Some(objection) = standing(&self.configured, address) {
            return Some(objection);
        }
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.iter()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(configured: &[&str], live: Vec<Protected>) -> Guard {
        let configured = configured.iter().map(|text| text.parse().unwrap()).collect();
        Guard::start(configured, Box::new(move || live.clone())).unwrap()
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
        assert_eq!(why("203.0.113.7"), None);
    }
}
