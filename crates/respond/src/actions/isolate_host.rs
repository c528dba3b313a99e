//! `isolate-host`: this host talks to its managers, to itself and to nobody else, by a table of its own that the system's
//! `nft` loads in one transaction. Without a known manager it is refused: nobody could lift it from afar. A manager that
//! is known by its name stays in reach when it moves, since the name servers may be asked; an address that was leased may
//! be renewed.
//! Invariant: the table is there whole or not at all.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Call, Failure, Local, Places, Proof, Subject, tool};

/// See the module.
pub(crate) struct IsolateHost;

/// One direction of the traffic to and from this host.
struct Way {
    hook: &'static str,
    interface: &'static str,
    peer: &'static str,
    peers_port: &'static str,
    own_port: &'static str,
}

const WAYS: [Way; 2] = [
    Way { hook: "input", interface: "iif", peer: "saddr", peers_port: "sport", own_port: "dport" },
    Way { hook: "output", interface: "oif", peer: "daddr", peers_port: "dport", own_port: "sport" },
];

fn rules(places: &Places) -> String {
    let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for Way { hook, interface, peer, peers_port, own_port } in WAYS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "chain {hook} {{ type filter hook {hook} priority -400; policy drop;");
        let _ = writeln!(text, "{interface} lo accept");
        // Without neighbour discovery an IPv6 manager is out of reach, and with the lease of our address every one.
        let _ = writeln!(text, "icmpv6 type {{ 133, 134, 135, 136 }} accept");
        for (theirs, ours) in [(67, 68), (547, 546)] {
            let _ = writeln!(text, "udp {peers_port} {theirs} udp {own_port} {ours} accept");
        }
        let names = format!("meta l4proto {{ tcp, udp }} th {peers_port} {{ 53, 853 }} ");
        for (addresses, of_what) in [(&places.managers, ""), (&places.resolvers, names.as_str())] {
            for (family, is_it) in [("ip", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("ip6", IpAddr::is_ipv6)]
            {
                let these: Vec<String> =
                    addresses.iter().filter(|one| is_it(one)).map(IpAddr::to_string).collect();
                if !these.is_empty() {
                    let _ = writeln!(text, "{family} {peer} {{ {} }} {of_what}accept", these.join(", "));
                }
            }
        }
        text.push_str("}\n");
    }
    text.push_str("chain forward { type filter hook forward priority -400; policy drop; }\n}\n");
    text
}

/// Whether a listed table is the one that is wanted.
fn is_wanted(listed: &str, places: &Places) -> bool {
    if listed.matches("policy drop;").count() != 3 {
        return false;
    }
    // After a start nobody knows for a moment where the managers are: what is in place was made by somebody who knew.
    if places.managers.is_empty() || !places.unknown_managers.is_empty() {
        return true;
    }
    let words = listed.split(|one: char| !one.is_ascii_hexdigit() && one != '.' && one != ':');
    let there: HashSet<IpAddr> = words.filter_map(|word| word.parse().ok()).collect();
    let accepts = |text: &str| text.split_whitespace().filter(|word| *word == "accept").count();
    let reached = places.managers.iter().chain(&places.resolvers).all(|address| there.contains(address));
    reached && accepts(listed) == accepts(&rules(places))
}

fn shown<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(T::to_string).collect();
    all.join(", ")
}

impl Local for IsolateHost {
    fn names(&self) -> &'static [&'static str] {
        &["isolate-host"]
    }

    fn subject(&self, _call: &Call) -> Result<Subject, String> {
        Ok(Subject::None)
    }

    fn prior(&self, call: &Call, _subject: &Subject) -> Result<String, Failure> {
        if !call.places.managers.is_empty() {
            return Ok("free".into());
        }
        let mut text = String::from("no address of a manager is known");
        if !call.places.unknown_managers.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, " ({} cannot be looked up)", shown(&call.places.unknown_managers));
        }
        text.push_str("; an isolated host could not be reached again");
        Err(Failure::Refused(text))
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        if call.places.managers.is_empty() && self.verify(call, subject, "")? {
            return Ok(format!("inet {TABLE} stays as it is, since no manager can be looked up now"));
        }
        self.prior(call, subject)?;
        tool::must(&call.tool("nft")?, ["-f", "-"], rules(&call.places).as_bytes())?;
        if !self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("there is no table inet {TABLE} although nft made it")));
        }
        let Places { managers, unknown_managers, resolvers, .. } = &call.places;
        let mut proof = format!("inet {TABLE} lets only {} pass", shown(managers));
        if !resolvers.is_empty() {
            let _ = write!(proof, ", and questions for names to {}", shown(resolvers));
        }
        if !unknown_managers.is_empty() {
            let _ = write!(proof, "; {} cannot be looked up and is out of reach", shown(unknown_managers));
        }
        Ok(proof)
    }

    fn revert(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
        tool::must(&call.tool("nft")?, ["-f", "-"], text.as_bytes())?;
        if self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("table inet {TABLE} is still there")));
        }
        Ok(format!("no table inet {TABLE} any more"))
    }

    fn verify(&self, call: &Call, _subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let ended = tool::run(&call.tool("nft")?, ["list", "table", "inet", TABLE], b"")?;
        match ended.status {
            Some(0) => Ok(is_wanted(&ended.output, &call.places)),
            Some(1) if ended.stderr.contains("No such file") => Ok(false),
            _ => Err(ended.failure(&call.tool("nft")?)),
        }
    }
}

const TABLE: &str = "threatlockdown_isolation";
