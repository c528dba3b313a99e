//! `route-null`: answers to the address go nowhere, by a blackhole route to that one host in the main table.
//! Invariant: a route of the administrator is neither replaced nor removed.

use std::net::IpAddr;

use tld_sys::route;

use super::{Call, Failure, Local, Proof, Subject};

/// See the module.
pub(crate) struct RouteNull;

fn address(subject: &Subject) -> Result<IpAddr, Failure> {
    subject.address().ok_or_else(|| Failure::Failed("no address".into()))
}

fn failed(what: &'static str, address: IpAddr) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Failed(format!("cannot {what} the route to {address}: {error}"))
}

impl Local for RouteNull {
    fn names(&self) -> &'static [&'static str] {
        &["route-null"]
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        // This script's literal is the shorter one (active-response 10.2).
        call.address().map_err(|_longer| "Cannot read 'srcip' from data".into())
    }

    fn prior(&self, _call: &Call, subject: &Subject) -> Result<String, Failure> {
        let address = address(subject)?;
        let routes = route::host_routes(address).map_err(failed("read", address))?;
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
        let left = route::host_routes(address).map_err(failed("read", address))?;
        if left.iter().any(|route| route.ours) {
            return Err(Failure::Failed(format!("the blackhole route to {address} is still there")));
        }
        Ok(format!("no blackhole route to {address} any more"))
    }

    fn verify(&self, _call: &Call, subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        let address = address(subject)?;
        let routes = route::host_routes(address).map_err(failed("read", address))?;
        Ok(routes.iter().any(|route| route.blackhole))
    }
}
