//! The firewall where there is no nf_tables: rules in a chain of our own, `iptables` and `ip6tables` run from fixed
//! paths and waited for (`-w`), their exit statuses believed. The tools know no deadline, so the scheduler alone
//! lifts what was blocked.
//! Invariant: nothing outside our chain is changed but the two jumps into it.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tld_sys::child::{Spec, run_capture};

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

    fn rule(&self, verb: &str, address: IpAddr) -> Vec<String> {
        [verb, &self.chain, "-s", &address.to_string(), "-j", "DROP"].map(String::from).to_vec()
    }

    fn is_blocked(&self, address: IpAddr) -> Result<bool, KernelError> {
        holds(self.tool(address)?, &self.rule("-C", address))
    }

    fn block(&self, address: IpAddr) -> Result<(), KernelError> {
        if self.is_blocked(address)? {
            return Ok(());
        }
        must(self.tool(address)?, &self.rule("-A", address))
    }

    fn unblock(&self, address: IpAddr) -> Result<(), KernelError> {
        for _ in 0..MOST_COPIES {
            if !self.is_blocked(address)? {
                return Ok(());
            }
            must(self.tool(address)?, &self.rule("-D", address))?;
        }
        Err(KernelError(format!("{address} is in the chain more than {MOST_COPIES} times")))
    }
}

impl Kernel for Iptables {
    fn place(&self) -> String {
        format!("iptables chain {}", self.chain)
    }

    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), KernelError>> {
        let one = |change: &Change| match *change {
            Change::Block(address, _) => self.block(address),
            Change::Unblock(address) => self.unblock(address),
        };
        changes.iter().map(one).collect()
    }

    fn lookup(&mut self, address: IpAddr) -> Result<Seen, KernelError> {
        Ok(if self.is_blocked(address)? { Seen::Present(None) } else { Seen::Absent })
    }

    fn list(&mut self) -> Result<Vec<(IpAddr, Option<Duration>)>, KernelError> {
        let mut all = Vec::new();
        for tool in [&self.four, &self.six].into_iter().flatten() {
            let answer = run(tool, &["-S".into(), self.chain.clone()])?;
            if answer.status != Some(0) {
                return Err(answer.refusal(tool));
            }
            all.extend(answer.output.lines().filter_map(source).map(|address| (address, None)));
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

/// The address in `-A <chain> -s 203.0.113.7/32 -j DROP`; none for rules that are not ours.
fn source(line: &str) -> Option<IpAddr> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let ["-A", _, "-s", network, "-j", "DROP"] = words.as_slice() else { return None };
    let (address, prefix) = network.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    (prefix == if address.is_ipv4() { "32" } else { "128" }).then_some(address)
}

fn tool(name: &str) -> Option<PathBuf> {
    let fixed = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    fixed.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

const POLL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(15);
const MOST_OUTPUT: usize = 16 << 20;
const MOST_COPIES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::firewall_drop::FirewallDrop;
    use crate::actions::{Action as _, Subject, Wanted};

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

    #[test]
    fn a_block_is_applied_verified_healed_and_lifted_in_both_families() {
        isolated(|tables| {
            for text in ["203.0.113.7", "2001:db8::7"] {
                let subject = Subject::Address(text.parse().unwrap());
                let wanted = [Wanted { subject: subject.clone(), lease: Some(Duration::from_secs(600)) }];
                let subjects = [subject];
                assert!(FirewallDrop.apply(tables, &wanted)[0].as_ref().unwrap().contains(text));
                assert!(FirewallDrop.apply(tables, &wanted)[0].is_ok(), "twice is once");
                assert_eq!(tables.list().unwrap().len(), 1);
                assert_eq!(FirewallDrop.verify(tables, &subjects).unwrap(), [Seen::Present(None)]);
                let tool = tables.tool(text.parse().unwrap()).unwrap().to_owned();
                by_hand(&tool, &["-F"]);
                assert_eq!(FirewallDrop.verify(tables, &subjects).unwrap(), [Seen::Absent]);
                for jump in ["INPUT", "FORWARD"] {
                    by_hand(&tool, &["-C", jump, "-j", "threatlockdown"]);
                }
                assert!(FirewallDrop.apply(tables, &wanted)[0].is_ok());
                assert!(FirewallDrop.revert(tables, &subjects)[0].is_ok());
                assert_eq!(FirewallDrop.verify(tables, &subjects).unwrap(), [Seen::Absent]);
                assert!(FirewallDrop.revert(tables, &subjects)[0].is_ok(), "absent is success");
            }
        });
    }

    #[test]
    fn a_chain_deleted_by_others_is_put_back_by_the_next_block() {
        isolated(|tables| {
            let tool = tables.four.clone().unwrap();
            by_hand(&tool, &["-F"]);
            by_hand(&tool, &["-X", "threatlockdown"]);
            let subject = Subject::Address("203.0.113.7".parse().unwrap());
            let proofs = FirewallDrop.apply(tables, &[Wanted { subject, lease: None }]);
            assert!(proofs[0].is_ok(), "{proofs:?}");
        });
    }

    #[test]
    fn only_our_own_form_of_rule_is_read() {
        assert_eq!(source("-A x -s 203.0.113.7/32 -j DROP"), "203.0.113.7".parse().ok());
        assert_eq!(source("-A x -s 2001:db8::7/128 -j DROP"), "2001:db8::7".parse().ok());
        for other in ["-N x", "-A x -s 203.0.113.0/24 -j DROP", "-A x -s 203.0.113.7/32 -p tcp -j DROP", ""] {
            assert_eq!(source(other), None);
        }
    }
}
