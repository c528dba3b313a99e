//! Ending live connections with given hosts: sockets of this machine through socket diagnosis, flows that pass through
//! it by forgetting them in connection tracking.
//!
//! Invariant: nothing is ended but what the kernel itself listed with one of the addresses as the other side.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::netlink::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, Socket, Writer, attribute, attributes, messages,
};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const TCP: u8 = 6;
/// Established, opening and closing ones; neither listeners nor the dead that only wait.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const ANSWER: Duration = Duration::from_secs(10);
const CONNTRACK: u16 = 1 << 8;
const CT_GET: u16 = CONNTRACK | 1;
const CT_DELETE: u16 = CONNTRACK | 2;
const TUPLE: u16 = 1;
const TUPLE_IP: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const MOST: usize = 1 << 20;

/// Ends local TCP sockets whose peer is one of `addresses`; both ends of each see an error. The number ended, for each
/// address.
pub fn cut_sockets(addresses: &[IpAddr]) -> io::Result<Vec<usize>> {
    let wanted = places(addresses);
    let mut counts = vec![0; addresses.len()];
    let mut socket = Socket::open(Some(rustix::net::netlink::SOCK_DIAG), 0)?;
    for family in FAMILIES {
        let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
        dump(&mut socket, BY_FAMILY, &request(family, &[0; 48]), |body| {
            let Some(id) = body.get(4..52) else { return };
            let peer = address(id.get(20..36).unwrap_or_default(), family);
            if let Some(at) = peer.and_then(|peer| wanted.get(&peer))
                && found.len() < MOST
            {
                found.push((*at, request(family, id)));
            }
        })?;
        for (at, request) in found {
            if ask(&mut socket, DESTROY, &request, |_| {})? {
                counts[at] += 1;
            }
        }
    }
    Ok(counts)
}

/// Makes connection tracking forget the flows with one of `addresses` as either original side. The number forgotten,
/// for each address. [`io::ErrorKind::Unsupported`] where there is no connection tracking to talk to.
pub fn cut_flows(addresses: &[IpAddr]) -> io::Result<Vec<usize>> {
    let wanted = places(addresses);
    let mut counts = vec![0; addresses.len()];
    let mut socket = Socket::open(Some(rustix::net::netlink::NETFILTER), 0)?;
    for family in FAMILIES {
        let header = [family, 0, 0, 0];
        let mut found: Vec<(usize, Attributes)> = Vec::new();
        let listed = dump(&mut socket, CT_GET, &header, |body| {
            let all = body.get(4..).unwrap_or_default();
            let Some(tuple) = attribute(all, TUPLE) else { return };
            let sides = attributes(attribute(tuple, TUPLE_IP).unwrap_or_default());
            let hit = sides.filter_map(|(_, side)| address(side, family)).find_map(|side| wanted.get(&side));
            if let Some(at) = hit
                && found.len() < MOST
            {
                let kept = attributes(all).filter(|(kind, _)| [TUPLE, ID, ZONE].contains(kind));
                found.push((*at, kept.map(|(kind, value)| (kind, value.to_vec())).collect()));
            }
        });
        match listed {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            listed => listed?,
        }
        for (at, kept) in found {
            let fill = |writer: &mut Writer| {
                for (kind, value) in &kept {
                    writer.attribute(*kind, value);
                }
            };
            if ask(&mut socket, CT_DELETE, &header, fill)? {
                counts[at] += 1;
            }
        }
    }
    Ok(counts)
}

/// Copies of attributes: type and value.
type Attributes = Vec<(u16, Vec<u8>)>;

const FAMILIES: [u8; 2] = [2, 10];

fn places(addresses: &[IpAddr]) -> BTreeMap<IpAddr, usize> {
    addresses.iter().enumerate().map(|(at, address)| (address.to_canonical(), at)).collect()
}

fn request(family: u8, id: &[u8]) -> Vec<u8> {
    let mut bytes = vec![family, TCP, 0, 0];
    bytes.extend_from_slice(&STATES.to_ne_bytes());
    bytes.extend_from_slice(id);
    bytes
}

/// Of sixteen bytes an IPv4 address takes the first four; attributes are exactly as long as they must be.
fn address(bytes: &[u8], family: u8) -> Option<IpAddr> {
    if family == FAMILIES[0] {
        let four: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        return matches!(bytes.len(), 4 | 16).then(|| IpAddr::from(four));
    }
    let sixteen: [u8; 16] = bytes.try_into().ok()?;
    // Sockets that serve both families show IPv4 peers as mapped ones.
    Some(IpAddr::from(sixteen).to_canonical())
}

fn dump(socket: &mut Socket, kind: u16, fixed: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut writer = Writer::default();
    writer.begin(kind, NLM_F_REQUEST | NLM_F_DUMP, 1, fixed);
    writer.end();
    socket.send(&writer.into_bytes())?;
    while let Some(datagram) = socket.receive(ANSWER)? {
        for message in messages(datagram).filter(|message| message.sequence == 1) {
            match message.errno() {
                Some(0) => {}
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None if message.kind == NLMSG_DONE => return Ok(()),
                None => take(message.body),
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Whether it was there to be ended.
fn ask(socket: &mut Socket, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Writer)) -> io::Result<bool> {
    let mut writer = Writer::default();
    writer.begin(kind, NLM_F_REQUEST | NLM_F_ACK, 2, fixed);
    fill(&mut writer);
    writer.end();
    socket.send(&writer.into_bytes())?;
    while let Some(datagram) = socket.receive(ANSWER)? {
        let answers = messages(datagram).filter(|message| message.sequence == 2);
        match answers.filter_map(|message| message.errno()).next() {
            Some(0) => return Ok(true),
            Some(libc::ENOENT | libc::ESRCH) => return Ok(false),
            Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
            None => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_in_every_form() {
        let mut four = [0; 16];
        four[..4].copy_from_slice(&[192, 0, 2, 1]);
        assert_eq!(address(&four, 2), "192.0.2.1".parse().ok());
        assert_eq!(address(&four[..4], 2), "192.0.2.1".parse().ok());
        let mapped: std::net::Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(address(&mapped.octets(), 10), "192.0.2.1".parse().ok());
        assert_eq!((address(&[1], 2), address(&four[..5], 10)), (None, None));
    }
}
