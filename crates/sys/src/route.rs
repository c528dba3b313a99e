//! Blackhole routes to single hosts, through rtnetlink. Ours carry a protocol number of their own, by which they are
//! known from those of an administrator.
//!
//! Invariant: only routes with our protocol number are removed.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::netlink::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, Socket, Writer, attribute, messages,
};

const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const EXCLUSIVE: u16 = 0x200;
const DESTINATION: u16 = 1;
const PRIORITY: u16 = 6;
const TABLE: u16 = 15;
const MAIN: u8 = 254;
const UNIVERSE: u8 = 0;
const BLACKHOLE: u8 = 6;
/// Who made a route, as `ip route` shows it; unassigned elsewhere.
const OURS: u8 = 0x74;
const ANSWER: Duration = Duration::from_secs(10);

/// A route to one host in the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRoute {
    /// The host.
    pub address: IpAddr,
    /// Whether packets to it are thrown away silently.
    pub blackhole: bool,
    /// Whether this program made it.
    pub ours: bool,
}

/// Throws packets to `address` away; twice is once. An existing route to the same host is [`libc::EEXIST`].
pub fn add_blackhole(address: IpAddr) -> io::Result<()> {
    change(NEWROUTE, NLM_F_CREATE | EXCLUSIVE, address)
}

/// Takes our blackhole away; that there is none is no error.
pub fn remove_blackhole(address: IpAddr) -> io::Result<()> {
    match change(DELROUTE, 0, address) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
        done => done,
    }
}

/// All routes to exactly `address` in the main table.
pub fn host_routes(address: IpAddr) -> io::Result<Vec<HostRoute>> {
    routes_to(&[address])
}

/// The same for many addresses of one family in one reading of the table.
pub fn routes_to(addresses: &[IpAddr]) -> io::Result<Vec<HostRoute>> {
    let wanted: HashSet<IpAddr> = addresses.iter().map(|address| address.to_canonical()).collect();
    let Some(family) = wanted.iter().next().map(|address| family(*address)) else { return Ok(Vec::new()) };
    let mut socket = Socket::open(None, 0)?;
    let mut writer = Writer::default();
    let mut header = [0_u8; 12];
    header[0] = family;
    writer.begin(GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 1, &header);
    writer.end();
    socket.send(&writer.into_bytes())?;
    let mut found = Vec::new();
    while let Some(datagram) = socket.receive(ANSWER)? {
        for message in messages(datagram) {
            if let Some(errno) = message.errno() {
                return Err(io::Error::from_raw_os_error(errno));
            }
            if message.kind == NLMSG_DONE {
                return Ok(found);
            }
            found.extend(route(message.body).filter(|route| wanted.contains(&route.address)));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn route(body: &[u8]) -> Option<HostRoute> {
    let (length, table, protocol, kind) = (*body.get(1)?, *body.get(4)?, *body.get(5)?, *body.get(7)?);
    let attributes = body.get(12..)?;
    let table = attribute(attributes, TABLE)
        .and_then(|value| value.try_into().ok())
        .map_or(u32::from(table), u32::from_ne_bytes);
    let bytes = attribute(attributes, DESTINATION)?;
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    let host = usize::from(length) == bytes.len() * 8 && table == u32::from(MAIN);
    host.then_some(HostRoute { address, blackhole: kind == BLACKHOLE, ours: protocol == OURS })
}

fn change(kind: u16, flags: u16, address: IpAddr) -> io::Result<()> {
    let address = address.to_canonical();
    let mut socket = Socket::open(None, 0)?;
    let length = if address.is_ipv4() { 32 } else { 128 };
    let header = [family(address), length, 0, 0, MAIN, OURS, UNIVERSE, BLACKHOLE, 0, 0, 0, 0];
    let mut writer = Writer::default();
    writer.begin(kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, &header);
    match address {
        IpAddr::V4(address) => writer.attribute(DESTINATION, &address.octets()),
        IpAddr::V6(address) => {
            writer.attribute(DESTINATION, &address.octets());
            // The kernel's default of 1024 would lose against an existing route to the host.
            writer.attribute(PRIORITY, &1_u32.to_ne_bytes());
        }
    }
    writer.end();
    socket.send(&writer.into_bytes())?;
    while let Some(datagram) = socket.receive(ANSWER)? {
        match messages(datagram).find_map(|message| message.errno()) {
            Some(0) => return Ok(()),
            Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
            None => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blackhole_is_added_seen_and_removed_in_both_families() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if let Err(error) = crate::net_namespace::enter_private() {
                    assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no private network: {error}");
                    println!("skipped: no private network: {error}");
                    return;
                }
                for text in ["203.0.113.7", "2001:db8::7"] {
                    let address: IpAddr = text.parse().unwrap();
                    assert_eq!(host_routes(address).unwrap(), []);
                    remove_blackhole(address).unwrap();
                    add_blackhole(address).unwrap();
                    let seen = HostRoute { address, blackhole: true, ours: true };
                    assert_eq!(host_routes(address).unwrap(), [seen]);
                    assert_eq!(add_blackhole(address).unwrap_err().raw_os_error(), Some(libc::EEXIST));
                    remove_blackhole(address).unwrap();
                    assert_eq!(host_routes(address).unwrap(), []);
                }
            });
        });
    }
}
