//! `isolate-host`: this host talks to its manager, to itself and to nobody else, by a table of its own that the system's
//! `nft` loads in one transaction. Without a known manager it is refused: nobody could lift it from afar.
//! Invariant: the table is there whole or not at all.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Call, Failure, Local, Proof, Subject, tool};

/// See the module.
pub(crate) struct IsolateHost;

fn rules(managers: &[IpAddr]) -> String {
    let set = |wanted: fn(&IpAddr) -> bool| {
        let texts: Vec<String> = managers.iter().filter(|one| wanted(one)).map(IpAddr::to_string).collect();
        texts.join(", ")
    };
    let (four, six) = (set(IpAddr::is_ipv4), set(IpAddr::is_ipv6));
    let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for (hook, interface, side) in [("input", "iif", "saddr"), ("output", "oif", "daddr")] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "chain {hook} {{ type filter hook {hook} priority -400; policy drop;");
        let _ = writeln!(text, "{interface} lo accept");
        // Without neighbour discovery an IPv6 manager is out of reach.
        let _ = writeln!(text, "icmpv6 type {{ 133, 134, 135, 136 }} accept");
        for (family, members) in [("ip", &four), ("ip6", &six)] {
            if !members.is_empty() {
                let _ = writeln!(text, "{family} {side} {{ {members} }} accept");
            }
        }
        text.push_str("}\n");
    }
    text.push_str("chain forward { type filter hook forward priority -400; policy drop; }\n}\n");
    text
}

impl Local for IsolateHost {
    fn names(&self) -> &'static [&'static str] {
        &["isolate-host"]
    }

    fn subject(&self, _call: &Call) -> Result<Subject, String> {
        Ok(Subject::None)
    }

    fn prior(&self, call: &Call, _subject: &Subject) -> Result<String, Failure> {
        if call.places.managers.is_empty() {
            let text = "no address of a manager is known; an isolated host could not be reached again";
            return Err(Failure::Refused(text.into()));
        }
        Ok("free".into())
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        self.prior(call, subject)?;
        tool::must(&call.tool("nft")?, ["-f", "-"], rules(&call.places.managers).as_bytes())?;
        if !self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("there is no table inet {TABLE} although nft made it")));
        }
        let managers: Vec<String> = call.places.managers.iter().map(IpAddr::to_string).collect();
        Ok(format!("inet {TABLE} lets only {} pass", managers.join(", ")))
    }

    fn revert(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
        tool::must(&call.tool("nft")?, ["-f", "-"], text.as_bytes())?;
        if self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("table inet {TABLE} is still there")));
        }
        Ok(format!("no table inet {TABLE} any more"))
    }

    /// Whether the three chains are there with their policy; that a rule in them was changed is not looked for.
    fn verify(&self, call: &Call, _subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let ended = tool::run(&call.tool("nft")?, ["list", "table", "inet", TABLE], b"")?;
        match ended.status {
            Some(0) => Ok(ended.output.matches("policy drop;").count() == 3),
            Some(1) if ended.stderr.contains("No such file") => Ok(false),
            _ => Err(ended.failure(&call.tool("nft")?)),
        }
    }
}

const TABLE: &str = "threatlockdown_isolation";
