//! The firewall where there is no nf_tables: rules in a chain of our own, `iptables` and `ip6tables` run from fixed
//! paths and waited for (`-w`), their exit statuses believed. The tools know no deadline, so the scheduler alone
//! lifts what was blocked.
//! Invariant: nothing outside our chains is changed but the jumps into them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tld_sys::child::{Spec, run_capture};
use tld_sys::nft::Spot;

use crate::kernel::{Change, Kernel, KernelError, Seen};

/// See the module.
#[derive(Debug)]
pub(crate) struct Iptables {
    four: Option<PathBuf>,
    six: Option<PathBuf>,
    chain: String,
}

impl Iptables {
    /// Finds the tools and puts the chain in place.
    pub(crate) fn open(chain: &str) -> Result<Self, KernelError> {
        let mut tables = Self { four: tool("iptables"), six: tool("ip6tables"), chain: chain.into() };
        if tables.four.is_none() && tables.six.is_none() {
            return Err(KernelError("there is no iptables".into()));
        }
        tables.ensure()?;
        Ok(tables)
    }

    fn tool(&self, address: IpAddr) -> Result<&Path, KernelError> {
        let (tool, name) =
            if address.is_ipv4() { (&self.four, "iptables") } else { (&self.six, "ip6tables") };
        tool.as_deref().ok_or_else(|| KernelError(format!("there is no {name}")))
    }

    /// The rules that stand for a spot. One port is kept in the table `raw`, before addresses are translated, so that
    /// it is the published one.
    fn rules(&self, verb: &str, spot: Spot) -> Vec<Vec<String>> {
        let (address, chain) = (spot.address.to_string(), self.chain.as_str());
        let words = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect::<Vec<_>>();
        let Some(port) = spot.port.map(|port| port.to_string()) else {
            return vec![words(&[verb, chain, "-s", &address, "-j", "DROP"])];
        };
        let of = |protocol| {
            words(&["-t", "raw", verb, chain, "-s", &address, "-p", protocol, "--dport", &port, "-j", "DROP"])
        };
        vec![of("tcp"), of("udp")]
    }

    fn is_blocked(&self, spot: Spot) -> Result<bool, KernelError> {
        let tool = self.tool(spot.address)?;
        for rule in self.rules("-C", spot) {
            if !holds(tool, &rule)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn block(&self, spot: Spot) -> Result<(), KernelError> {
        let tool = self.tool(spot.address)?;
        if spot.port.is_some() {
            self.ensure_raw(tool)?;
        }
        for (look, add) in self.rules("-C", spot).iter().zip(self.rules("-A", spot)) {
            if !holds(tool, look)? {
                must(tool, &add)?;
            }
        }
        Ok(())
    }

    fn unblock(&self, spot: Spot) -> Result<(), KernelError> {
        let tool = self.tool(spot.address)?;
        for (look, delete) in self.rules("-C", spot).iter().zip(self.rules("-D", spot)) {
            let mut copies = 0;
            while holds(tool, look)? {
                if copies == MOST_COPIES {
                    return Err(KernelError(format!("{spot} is in the chain more than {MOST_COPIES} times")));
                }
                copies += 1;
                must(tool, &delete)?;
            }
        }
        Ok(())
    }

    /// Our chain for single ports.
    fn ensure_raw(&self, tool: &Path) -> Result<(), KernelError> {
        let args = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect::<Vec<_>>();
        if !holds(tool, &args(&["-t", "raw", "-S", &self.chain]))? {
            must(tool, &args(&["-t", "raw", "-N", &self.chain]))?;
        }
        if !holds(tool, &args(&["-t", "raw", "-C", "PREROUTING", "-j", &self.chain]))? {
            must(tool, &args(&["-t", "raw", "-I", "PREROUTING", "1", "-j", &self.chain]))?;
        }
        Ok(())
    }
}

impl Kernel for Iptables {
    fn place(&self) -> String {
        format!("iptables chain {}", self.chain)
    }

    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), KernelError>> {
        let one = |change: &Change| match *change {
            Change::Block(spot, _) | Change::Create(spot, _) => self.block(spot),
            Change::Unblock(spot) => self.unblock(spot),
        };
        changes.iter().map(one).collect()
    }

    fn look(&mut self, spots: &[Spot]) -> Result<Vec<Seen>, KernelError> {
        let seen = |there: bool| if there { Seen::Present(None) } else { Seen::Absent };
        if spots.len() <= FEW {
            return spots.iter().map(|spot| self.is_blocked(*spot).map(seen)).collect();
        }
        // Each question is a process: one listing answers them all.
        let held: HashSet<Spot> = self.list()?.into_iter().map(|(spot, _)| spot).collect();
        Ok(spots.iter().map(|spot| seen(held.contains(spot))).collect())
    }

    fn list(&mut self) -> Result<Vec<(Spot, Option<Duration>)>, KernelError> {
        let mut all = Vec::new();
        for tool in [&self.four, &self.six].into_iter().flatten() {
            let answer = run(tool, &["-S".into(), self.chain.clone()])?;
            if answer.status != Some(0) {
                return Err(answer.refusal(tool));
            }
            all.extend(answer.output.lines().filter_map(source).map(|(spot, _)| (spot, None)));
            // Without blocks of ports there is no such chain, perhaps no such table.
            let raw = run(tool, &["-t", "raw", "-S", &self.chain].map(String::from))?;
            let mut seen = HashSet::new();
            for (spot, protocol) in raw.output.lines().filter_map(source) {
                if !seen.insert((spot, protocol)) {
                    continue;
                }
                // A port counts as blocked when it is for both protocols.
                let other = if protocol == "tcp" { "udp" } else { "tcp" };
                if seen.contains(&(spot, other)) {
                    all.push((spot, None));
                }
            }
        }
        Ok(all)
    }

    fn ensure(&mut self) -> Result<(), KernelError> {
        for tool in [&self.four, &self.six].into_iter().flatten() {
            let args = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect::<Vec<_>>();
            if !holds(tool, &args(&["-S", &self.chain]))? {
                must(tool, &args(&["-N", &self.chain]))?;
            }
            for hook in ["INPUT", "FORWARD"] {
                if !holds(tool, &args(&["-C", hook, "-j", &self.chain]))? {
                    must(tool, &args(&["-I", hook, "1", "-j", &self.chain]))?;
                }
            }
            if holds(tool, &args(&["-t", "raw", "-S", &self.chain]))? {
                self.ensure_raw(tool)?;
            }
        }
        Ok(())
    }

    fn keeps_leases(&self) -> bool {
        false
    }

    fn poll(&self) -> Duration {
        POLL
    }
}

struct Answer {
    status: Option<i32>,
    output: String,
    stderr: String,
}

impl Answer {
    fn refusal(&self, tool: &Path) -> KernelError {
        let status =
            self.status.map_or_else(|| "no exit status".to_owned(), |code| format!("exit status {code}"));
        KernelError(format!("{}: {status}: {}", tool.display(), self.stderr.trim()))
    }
}

fn run(tool: &Path, words: &[String]) -> Result<Answer, KernelError> {
    let mut args: Vec<OsString> = vec!["-w".into(), "5".into()];
    args.extend(words.iter().map(OsString::from));
    let spec = Spec { args, ..Spec::new(tool) };
    let captured = run_capture(&spec, b"", MOST_OUTPUT, PATIENCE)
        .map_err(|error| KernelError(format!("cannot run {}: {error}", tool.display())))?;
    Ok(Answer {
        status: captured.status.and_then(|status| status.code()),
        output: String::from_utf8_lossy(&captured.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&captured.stderr).into_owned(),
    })
}

/// Status 1 means no; anything else but 0 is a failure, of rights or of the lock.
fn holds(tool: &Path, words: &[String]) -> Result<bool, KernelError> {
    let answer = run(tool, words)?;
    match answer.status {
        Some(0) => Ok(true),
        // Without our chain the newer tools call the rule itself bad and answer 2.
        Some(1 | 2) => Ok(false),
        _ => Err(answer.refusal(tool)),
    }
}

fn must(tool: &Path, words: &[String]) -> Result<(), KernelError> {
    let answer = run(tool, words)?;
    if answer.status == Some(0) { Ok(()) } else { Err(answer.refusal(tool)) }
}

/// The address in `-A <chain> -s 203.0.113.7/32 -j DROP`, or with its port and protocol in
/// `-A <chain> -s 203.0.113.7/32 -p tcp -m tcp --dport 22 -j DROP`; none for rules that are not ours.
fn source(line: &str) -> Option<(Spot, &str)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (network, port, protocol) = match words.as_slice() {
        ["-A", _, "-s", network, "-j", "DROP"] => (network, None, ""),
        [
            "-A",
            _,
            "-s",
            network,
            "-p",
            protocol @ ("tcp" | "udp"),
            "-m",
            _,
            "--dport",
            port,
            "-j",
            "DROP",
        ] => (network, Some(port.parse().ok()?), *protocol),
        _ => return None,
    };
    let (address, prefix) = network.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    (prefix == if address.is_ipv4() { "32" } else { "128" }).then_some((Spot { address, port }, protocol))
}

fn tool(name: &str) -> Option<PathBuf> {
    let fixed = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    fixed.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

const POLL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(15);
const MOST_OUTPUT: usize = 16 << 20;
const MOST_COPIES: usize = 32;
/// Questions that are asked one by one.
const FEW: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::firewall_drop::FirewallDrop;
    use crate::actions::{Action as _, Wanted};

    fn isolated(test: impl FnOnce(&mut Iptables) + Send) {
        let ran = std::thread::scope(|scope| {
            let work = || {
                tld_sys::net_namespace::enter_private().ok()?;
                test(&mut Iptables::open("threatlockdown").ok()?);
                Some(())
            };
            scope.spawn(work).join().expect("the test panicked")
        });
        if ran.is_none() {
            assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "no iptables in a private network");
            println!("skipped: needs root, iptables and a private network namespace");
        }
    }

    fn by_hand(tool: &Path, words: &[&str]) {
        must(tool, &words.iter().map(|word| String::from(*word)).collect::<Vec<_>>()).unwrap();
    }

    fn spot(address: &str, port: Option<u16>) -> Spot {
        Spot { address: address.parse().unwrap(), port }
    }

    #[test]
    fn a_block_is_applied_verified_healed_and_lifted_in_both_families() {
        isolated(|tables| {
            for spot in [spot("203.0.113.7", None), spot("2001:db8::7", None)] {
                let wanted = [Wanted { spot, lease: Some(Duration::from_secs(600)), fresh: true }];
                let text = spot.to_string();
                assert!(FirewallDrop.apply(tables, &wanted)[0].as_ref().unwrap().contains(&text));
                assert!(FirewallDrop.apply(tables, &wanted)[0].is_ok(), "twice is once");
                assert_eq!(tables.list().unwrap().len(), 1);
                assert_eq!(tables.look(&[spot]).unwrap(), [Seen::Present(None)]);
                let tool = tables.tool(spot.address).unwrap().to_owned();
                by_hand(&tool, &["-F"]);
                tables.ensure().unwrap();
                assert_eq!(tables.look(&[spot; 5]).unwrap(), [Seen::Absent; 5]);
                for jump in ["INPUT", "FORWARD"] {
                    by_hand(&tool, &["-C", jump, "-j", "threatlockdown"]);
                }
                assert!(FirewallDrop.apply(tables, &wanted)[0].is_ok());
                assert!(FirewallDrop.revert(tables, &[spot])[0].is_ok());
                assert_eq!(tables.look(&[spot]).unwrap(), [Seen::Absent]);
                assert!(FirewallDrop.revert(tables, &[spot])[0].is_ok(), "absent is success");
            }
        });
    }

    #[test]
    fn single_ports_stand_before_the_translation_of_addresses_for_tcp_and_udp() {
        isolated(|tables| {
            for address in ["203.0.113.7", "2001:db8::7"] {
                let spots = [spot(address, Some(22)), spot(address, Some(80))];
                let wanted = spots.map(|spot| Wanted { spot, lease: None, fresh: false });
                assert!(FirewallDrop.apply(tables, &wanted).iter().all(Result::is_ok));
                let tool = tables.tool(spots[0].address).unwrap().to_owned();
                for protocol in ["tcp", "udp"] {
                    let rule = ["-t", "raw", "-C", "threatlockdown", "-s", address, "-p", protocol];
                    by_hand(&tool, &[&rule[..], &["--dport", "80", "-j", "DROP"]].concat());
                }
                by_hand(&tool, &["-t", "raw", "-F", "PREROUTING"]);
                tables.ensure().unwrap();
                by_hand(&tool, &["-t", "raw", "-C", "PREROUTING", "-j", "threatlockdown"]);
                let there = [spots[0], spots[1], spot(address, None), spot(address, Some(81))];
                let seen = [Seen::Present(None), Seen::Present(None), Seen::Absent, Seen::Absent];
                assert_eq!(tables.look(&there).unwrap(), seen);
                assert!(FirewallDrop.revert(tables, &spots).iter().all(Result::is_ok));
                assert_eq!(tables.list().unwrap(), []);
            }
        });
    }

    #[test]
    fn a_chain_deleted_by_others_is_put_back_by_the_next_block() {
        isolated(|tables| {
            let tool = tables.four.clone().unwrap();
            by_hand(&tool, &["-F"]);
            by_hand(&tool, &["-X", "threatlockdown"]);
            let wanted = [Wanted { spot: spot("203.0.113.7", None), lease: None, fresh: true }];
            let proofs = FirewallDrop.apply(tables, &wanted);
            assert!(proofs[0].is_ok(), "{proofs:?}");
        });
    }

    #[test]
    fn only_our_own_form_of_rule_is_read() {
        assert_eq!(source("-A x -s 203.0.113.7/32 -j DROP"), Some((spot("203.0.113.7", None), "")));
        assert_eq!(source("-A x -s 2001:db8::7/128 -j DROP"), Some((spot("2001:db8::7", None), "")));
        let port = "-A x -s 203.0.113.7/32 -p tcp -m tcp --dport 22 -j DROP";
        assert_eq!(source(port), Some((spot("203.0.113.7", Some(22)), "tcp")));
        for other in ["-N x", "-A x -s 203.0.113.0/24 -j DROP", "-A x -s 203.0.113.7/32 -p tcp -j DROP", ""] {
            assert_eq!(source(other), None);
        }
    }
}
