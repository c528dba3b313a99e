//! What this machine is called and which addresses it must never block.
//!
//! Invariant: parsers of kernel and system files skip what they do not understand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::durable::read_bounded;

const FILE: usize = 16 << 20;

/// The machine's full name as set, `localhost` if it has none.
#[must_use]
pub fn name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().trim().to_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// [`name`] up to the first dot.
#[must_use]
pub fn short_name() -> String {
    short(&name())
}

/// System, node, release, version and machine, as the kernel names them.
#[must_use]
pub fn uname() -> [String; 5] {
    let uname = rustix::system::uname();
    [uname.sysname(), uname.nodename(), uname.release(), uname.version(), uname.machine()]
        .map(|part| part.to_string_lossy().into_owned())
}

/// Bytes of memory that this machine has; 0 if it does not tell.
#[must_use]
pub fn memory() -> u64 {
    let text = read_bounded(Path::new("/proc/meminfo"), 1 << 16).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn short(name: &str) -> String {
    match name.split_once('.') {
        Some((short, _)) if !short.is_empty() => short.to_owned(),
        _ => name.to_owned(),
    }
}

/// All addresses of all interfaces, loopback too; empty if the kernel does not tell.
#[cfg(target_os = "linux")]
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    addresses().unwrap_or_default()
}

/// Not known here yet.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn addresses() -> std::io::Result<Vec<IpAddr>> {
    use crate::netlink::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, Socket, Writer, attribute, messages};

    const NEWADDR: u16 = 20;
    const GETADDR: u16 = 22;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;

    let mut socket = Socket::open(None, 0)?;
    let mut writer = Writer::default();
    writer.begin(GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, &[0; 8]);
    writer.end();
    socket.send(&writer.into_bytes())?;
    let mut found = Vec::new();
    while let Some(datagram) = socket.receive(std::time::Duration::from_secs(10))? {
        for message in messages(datagram) {
            if let Some(errno) = message.errno() {
                return Err(std::io::Error::from_raw_os_error(errno));
            }
            if message.kind == NLMSG_DONE {
                return Ok(found);
            }
            let attributes = message.body.get(8..).unwrap_or_default();
            // On a point-to-point link ADDRESS is the other side's, LOCAL ours.
            let own = attribute(attributes, LOCAL).or_else(|| attribute(attributes, ADDRESS));
            if message.kind == NEWADDR {
                found.extend(own.and_then(from_bytes));
            }
        }
    }
    Ok(found)
}

#[cfg(target_os = "linux")]
fn from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The routers this machine sends through.
#[must_use]
pub fn gateways() -> Vec<IpAddr> {
    // The calling thread's network, like the addresses above; `/proc/net` would be that of the process' first thread.
    let net = Path::new("/proc/thread-self/net");
    let net = if net.is_dir() { net } else { Path::new("/proc/net") };
    let mut all = gateways4(&text(&net.join("route")));
    all.extend(gateways6(&text(&net.join("ipv6_route"))));
    all
}

/// The name servers this machine asks.
#[must_use]
pub fn resolvers() -> Vec<IpAddr> {
    name_servers(&text(Path::new("/etc/resolv.conf")))
}

/// The servers that names are asked of in the end, where [`resolvers`] are only a local go-between.
pub fn upstream_resolvers() -> Vec<IpAddr> {
    name_servers(&text(Path::new("/run/systemd/resolve/resolv.conf")))
}

fn text(path: &Path) -> String {
    read_bounded(path, FILE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

const UP: u32 = 0x1;
const GATEWAY: u32 = 0x2;

fn gateways4(table: &str) -> Vec<IpAddr> {
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        // Eight digits of a number in the machine's byte order whose memory is the address.
        let address = u32::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        (flags & (UP | GATEWAY) == UP | GATEWAY).then(|| IpAddr::from(Ipv4Addr::from(address.to_ne_bytes())))
    };
    distinct(table.lines().skip(1).filter_map(parse))
}

fn gateways6(table: &str) -> Vec<IpAddr> {
    let parse = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let address = u128::from_str_radix(fields.get(4)?, 16).ok()?;
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        (flags & (UP | GATEWAY) == UP | GATEWAY).then(|| IpAddr::from(Ipv6Addr::from_bits(address)))
    };
    distinct(table.lines().filter_map(parse))
}

fn name_servers(file: &str) -> Vec<IpAddr> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != "nameserver" {
            return None;
        }
        // A link-local server is written with its interface.
        words.next()?.split('%').next()?.parse().ok()
    };
    distinct(file.lines().filter_map(parse))
}

fn distinct(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for address in addresses {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_short_name_ends_at_the_first_dot() {
        assert_eq!(short("web.example.org"), "web");
        assert_eq!(short("web"), "web");
        assert_eq!(short(".odd"), ".odd");
        assert!(name().starts_with(&short_name()));
        assert!(!name().is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fresh_network_has_the_loopback_addresses_and_no_gateway() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if let Err(e) = crate::net_namespace::enter_private() {
                    assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no private network: {e}");
                    println!("skipped: no private network: {e}");
                    return;
                }
                let addresses = own_addresses();
                assert!(addresses.contains(&ip("127.0.0.1")), "{addresses:?}");
            });
        });
    }

    #[test]
    fn gateways_are_read_from_the_kernels_tables() {
        let address = u32::from_ne_bytes([192, 0, 2, 1]);
        let table = format!(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\n\
             eth0\t00000000\t{address:08X}\t0003\t0\n\
             eth1\t00000000\t{address:08X}\t0003\t0\n\
             eth0\t000200C0\t00000000\t0001\t0\nbroken\n"
        );
        assert_eq!(gateways4(&table), [ip("192.0.2.1")]);
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\nbroken\n"
        );
        assert_eq!(gateways6(&table), [ip("fe80::1")]);
    }

    #[test]
    fn name_servers_are_read_once_each_with_comments_and_zones_ignored() {
        let file = "# nameserver 9.9.9.9\nsearch x\nnameserver 192.0.2.53\nnameserver\tfe80::1%eth0\n\
                    nameserver 192.0.2.53 # again\nnameserver nonsense\nnameserver\n";
        assert_eq!(name_servers(file), [ip("192.0.2.53"), ip("fe80::1")]);
    }

    proptest! {
        #[test]
        fn no_table_makes_the_parsers_panic(table in "\\PC*(\n[0-9a-f ]*){0,5}") {
            let _ = (gateways4(&table), gateways6(&table), name_servers(&table));
        }
    }
}
