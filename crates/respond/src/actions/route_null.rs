//! `route-null`: answers to the address go nowhere, by a blackhole route to that one host in the main table.
//! Invariant: a route of the administrator is neither replaced nor removed.

use std::net::IpAddr;

use tld_sys::route::{self, HostRoute};

use super::{Call, Failure, Local, Proof, Subject, Takes};
use crate::together::Places;

/// See the module.
pub(crate) struct RouteNull;

fn address(subject: &Subject) -> Result<IpAddr, Failure> {
    subject.address().ok_or_else(|| Failure::Failed("no address".into()))
}

/// Device and number of a network namespace.
type Network = Option<(u64, u64)>;
type Routes = Result<Vec<HostRoute>, String>;

static TABLES: Places<Network, IpAddr, Routes> = Places::new();

/// The routes to one host. Many who ask at once share one reading of the table; each network has its own.
fn routes(address: IpAddr) -> Result<Vec<HostRoute>, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let network = std::fs::metadata("/proc/thread-self/ns/net").ok().map(|seen| (seen.dev(), seen.ino()));
    let answer = TABLES.at(network).ask(address, |asked| {
        let read = |four: bool| {
            let wanted: Vec<IpAddr> = asked.iter().copied().filter(|one| one.is_ipv4() == four).collect();
            route::routes_to(&wanted).map_err(|error| error.to_string())
        };
        let tables = [read(true), read(false)];
        let of = |address: &IpAddr| {
            let table = tables[usize::from(address.is_ipv6())].as_ref().map_err(Clone::clone)?;
            Ok(table.iter().filter(|route| route.address == *address).copied().collect())
        };
        asked.iter().map(of).collect()
    });
    let answer = answer.unwrap_or_else(|| Err("nobody read the table".into()));
    answer.map_err(|why| Failure::Failed(format!("cannot read the route to {address}: {why}")))
}

fn failed(what: &'static str, address: IpAddr) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Failed(format!("cannot {what} the route to {address}: {error}"))
}

impl Local for RouteNull {
    fn names(&self) -> &'static [&'static str] {
        &["route-null"]
    }

    fn takes(&self) -> Option<Takes> {
        Some(Takes::Address)
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        // This script's literal is the shorter one (active-response 10.2).
        call.address().map_err(|_longer| "Cannot read 'srcip' from data".into())
    }

    fn prior(&self, _call: &Call, subject: &Subject) -> Result<String, Failure> {
        let address = address(subject)?;
        let routes = routes(address)?;
        if routes.iter().any(|route| route.blackhole && !route.ours) {
            return Ok("present".into());
        }
        if routes.iter().any(|route| !route.ours) {
            let text = format!("a route to {address} alone exists already and is left as it is");
            return Err(Failure::Refused(text));
        }
        Ok("absent".into())
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let address = address(subject)?;
        if !self.verify(call, subject, "")? {
            route::add_blackhole(address).map_err(failed("make", address))?;
        }
        if !self.verify(call, subject, "")? {
            return Err(Failure::Failed(format!("there is no blackhole route to {address} after all")));
        }
        Ok(format!("blackhole route to {address} in the main table"))
    }

    fn revert(&self, _call: &Call, subject: &Subject, prior: &str) -> Result<Proof, Failure> {
        let address = address(subject)?;
        if prior == "present" {
            return Ok(format!("the blackhole route to {address} was there before and stays"));
        }
        route::remove_blackhole(address).map_err(failed("remove", address))?;
        let left = routes(address)?;
        if left.iter().any(|route| route.ours) {
            return Err(Failure::Failed(format!("the blackhole route to {address} is still there")));
        }
        Ok(format!("no blackhole route to {address} any more"))
    }

    fn verify(&self, _call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let address = address(subject)?;
        let routes = routes(address)?;
        Ok(routes.iter().any(|route| route.blackhole))
    }
}
