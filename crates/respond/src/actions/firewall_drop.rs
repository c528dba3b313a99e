//! `firewall-drop`: no packet of the source address is let in or through. Lives in our own table; the kernel holds
//! the deadline, so a block ends on time even if nothing of ours is alive.
//! Invariant: an address is only reported blocked after the kernel showed it.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Action, Proof, Subject, Wanted};
use tld_sys::nft::Spot;

use crate::kernel::{Change, Kernel, KernelError, Seen};
use crate::member;

/// See the module.
#[derive(Debug)]
pub(crate) struct FirewallDrop;

impl Action for FirewallDrop {
    fn names(&self) -> &'static [&'static str] {
        &["firewall-drop", "default-firewall-drop", "block-ip"]
    }

    fn subject(&self, alert: &Value) -> Result<Subject, &'static str> {
        source(alert).map(Subject::Address).ok_or(NO_SOURCE)
    }

    fn apply(&self, kernel: &mut dyn Kernel, wanted: &[Wanted]) -> Vec<Result<Proof, String>> {
        let blocks = wanted.iter().map(|one| match one.fresh {
            true => Change::Create(one.spot, one.lease),
            false => Change::Block(one.spot, one.lease),
        });
        let answers = change(kernel, &blocks.collect::<Vec<_>>());
        let spots: Vec<Spot> = wanted.iter().map(|one| one.spot).collect();
        let place = kernel.place();
        let read_back = read_back(kernel, &spots, answers).map(|(spot, seen)| match seen? {
            Seen::Absent => Err(format!("{place} has no {spot} although the kernel took it")),
            Seen::Present(None) => Ok(format!("{place} has {spot} without end")),
            Seen::Present(Some(left)) => Ok(format!("{place} has {spot}, {} s left", seconds(left))),
        });
        read_back.collect()
    }

    fn revert(&self, kernel: &mut dyn Kernel, spots: &[Spot]) -> Vec<Result<Proof, String>> {
        let changes: Vec<_> = spots.iter().map(|spot| Change::Unblock(*spot)).collect();
        let answers = change(kernel, &changes);
        let place = kernel.place();
        let read_back = read_back(kernel, spots, answers).map(|(spot, seen)| match seen? {
            Seen::Absent => Ok(format!("{place} has {spot} no more")),
            Seen::Present(_) => Err(format!("{place} still has {spot}")),
        });
        read_back.collect()
    }
}

/// Looks at all spots at once. What could not be changed stays an error.
fn read_back(
    kernel: &mut dyn Kernel,
    spots: &[Spot],
    answers: Vec<Result<(), KernelError>>,
) -> impl Iterator<Item = (Spot, Result<Seen, String>)> {
    let looked = kernel.look(spots).map_err(|error| format!("cannot read back: {error}"));
    let spots = spots.to_vec();
    spots.into_iter().zip(answers).enumerate().map(move |(at, (spot, answer))| {
        let seen = answer.map_err(|error| error.to_string()).and_then(|()| match &looked {
            Ok(seen) => seen.get(at).copied().ok_or_else(|| "cannot read back: no answer".to_owned()),
            Err(why) => Err(why.clone()),
        });
        (spot, seen)
    })
}

/// A lost table is put back and the batch tried once more: a flush between two orders must not fail the second.
fn change(kernel: &mut dyn Kernel, changes: &[Change]) -> Vec<Result<(), KernelError>> {
    let answers = kernel.change(changes);
    if answers.iter().all(Result::is_ok) || kernel.ensure().is_err() {
        return answers;
    }
    kernel.change(changes)
}

fn seconds(left: Duration) -> u64 {
    left.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
}

/// The source address in the contract's order of preference. A field that holds no address (`-` in many Windows
/// events) is passed over in favour of the next.
pub(crate) fn source(alert: &Value) -> Option<IpAddr> {
    fields(alert).filter_map(|text| text.parse::<IpAddr>().ok()).map(|one| one.to_canonical()).next()
}

/// The texts that may be the source address, in that order.
pub(crate) fn fields(alert: &Value) -> impl Iterator<Item = &str> {
    let paths = ["data/win/eventdata/ipAddress", "data/win/eventdata/destinationIp", "data/srcip"];
    paths.into_iter().filter_map(|path| member::text(alert, path))
}

/// Literal of the contract (active-response 10.2).
pub(crate) const NO_SOURCE: &str = "Cannot read 'srcip' from data or invalid IP format";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_that_holds_an_address_wins() {
        let of = |text: &str| source(&serde_json::from_str(text).unwrap()).map(|one| one.to_string());
        assert_eq!(of(r#"{"DATA":{"SrcIp":"192.0.2.1"}}"#).as_deref(), Some("192.0.2.1"));
        let win = r#"{"data":{"win":{"eventdata":{"ipAddress":"-","destinationIp":"192.0.2.9"}},"srcip":"192.0.2.1"}}"#;
        assert_eq!(of(win).as_deref(), Some("192.0.2.9"));
        assert_eq!(of(r#"{"data":{"srcip":"::ffff:192.0.2.1"}}"#).as_deref(), Some("192.0.2.1"));
        assert_eq!(of(r#"{"data":{"srcip":"2001:db8::1"}}"#).as_deref(), Some("2001:db8::1"));
        for bad in [
            "",
            "...",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4/24",
            "../1.2.3.4",
            "1.2.3.4;id",
            "$(id)",
            " 1.2.3.4",
            "fe80::1%eth0",
        ] {
            assert_eq!(of(&serde_json::json!({"data": {"srcip": bad}}).to_string()), None, "{bad}");
        }
        for none in
            [r#"{"data":{"srcip":"host.example"}}"#, r#"{"data":[]}"#, "{}", r#"{"data":{"srcip":7}}"#]
        {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
