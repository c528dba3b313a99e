//! Hands the manager's messages to the responder.
//!
//! An order can come before the files that tell what its name stands for: on a new agent, or right after the manager
//! got another configuration. One of ours is held until they are here; a plain manager's is answered as the contract has it.
//! Invariant: held orders keep their order, and none is held for longer than its own deadline.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tld_model::{Outcome, Timestamp};
use tld_sys::clock::{Clock, SystemClock};
use tld_wire::extension::Ticket;

use crate::responder::intake::Intake;
use crate::responder::voice::Voice;
use crate::uplink::Errand;

/// Of at most 64 KiB each. What comes beyond is not confirmed, so that the manager sends it again.
const MOST: usize = 256;
const TICK: Duration = Duration::from_millis(200);
/// Added to the interval of keep-alives, each of which may bring the files.
const TRANSFER: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Held {
    json: Vec<u8>,
    ticket: Ticket,
    until: Duration,
}

/// The way from the uplink to the responder.
pub(super) struct Orders<F> {
    intake: Intake,
    held: VecDeque<Held>,
    patience: Duration,
    voice: Voice,
    told: F,
}

impl<F: Fn(Outcome)> Orders<F> {
    /// What never becomes an order has its outcome `told`.
    pub(super) fn new(intake: Intake, notify: Duration, voice: Voice, told: F) -> Self {
        Self { intake, held: VecDeque::new(), patience: notify.saturating_add(TRANSFER), voice, told }
    }

    /// Until the uplink is gone.
    pub(super) fn serve(&mut self, errands: &Receiver<Errand>) {
        loop {
            // Nothing but an errand needs attention while nothing is held.
            let wait = if self.held.is_empty() { Duration::from_secs(3600) } else { TICK };
            let errand = match errands.recv_timeout(wait) {
                Ok(errand) => Some(errand),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.step(errand, SystemClock.boot());
        }
    }

    fn step(&mut self, errand: Option<Errand>, now: Duration) {
        self.release(now, matches!(errand, Some(Errand::Files)));
        match errand {
            Some(Errand::Order(json, ticket)) => self.order(json, ticket, now),
            Some(Errand::Confirmed(order, kind)) => self.intake.sink().confirm(order, kind),
            Some(Errand::Cancel(order)) => {
                self.held.retain(|held| held.ticket.order != order);
                self.intake.sink().withdraw(order);
            }
            Some(Errand::Files) | None => {}
        }
    }

    fn order(&mut self, json: Vec<u8>, ticket: Option<Ticket>, now: Duration) {
        let Some(ticket) = ticket else { return self.pass(&json, None) };
        if self.held.iter().any(|held| held.ticket.order == ticket.order) {
            return;
        }
        let wait = ticket.deadline_ns.map_or(self.patience, left).min(self.patience);
        if wait.is_zero() || self.intake.knows(&json) {
            return self.pass(&json, Some(&ticket));
        }
        if self.held.len() == MOST {
            self.voice.warning("an order was dropped: too many wait for the manager's files");
            return;
        }
        self.voice.info(&format!(
            "order `{}` waits for the manager's files, which tell its response",
            ticket.order
        ));
        self.held.push_back(Held { json, ticket, until: now + wait });
    }

    /// Passes on what is known by now; with `all`, or when its time is over, also what is not.
    fn release(&mut self, now: Duration, all: bool) {
        for held in std::mem::take(&mut self.held) {
            if all || now >= held.until || self.intake.knows(&held.json) {
                self.pass(&held.json, Some(&held.ticket));
            } else {
                self.held.push_back(held);
            }
        }
    }

    fn pass(&mut self, json: &[u8], ticket: Option<&Ticket>) {
        if let Some(outcome) = self.intake.take(json, ticket) {
            (self.told)(outcome);
        }
    }
}

/// Until a moment on the wall clock.
fn left(deadline_ns: i64) -> Duration {
    let now = Timestamp::from_nanos(SystemClock.wall_nanos()).nanos();
    Duration::from_nanos(u64::try_from(deadline_ns.saturating_sub(now)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex, PoisonError};

    use tld_config::ResponderSettings;
    use tld_model::{Order, OrderId, OutcomeKind, Zone};
    use tld_respond::ossec_log::Log;

    use super::*;
    use crate::responder::intake::Sink;

    #[derive(Debug)]
    struct Taker(Mutex<Sender<String>>);

    impl Taker {
        fn note(&self, text: String) {
            let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(text);
        }
    }

    impl Sink for Taker {
        fn put(&self, order: Order) -> Result<(), String> {
            self.note(order.id.0);
            Ok(())
        }

        fn confirm(&self, _: OrderId, _: OutcomeKind) {}

        fn withdraw(&self, order: OrderId) {
            self.note(format!("withdrawn {}", order.0));
        }
    }

    struct Bed {
        home: tempfile::TempDir,
        taken: Receiver<String>,
        told: std::rc::Rc<RefCell<Vec<String>>>,
        orders: Orders<Box<dyn Fn(Outcome)>>,
    }

    fn bed() -> Bed {
        let home = tempfile::tempdir().unwrap();
        tld_sys::durable::create_dirs(&home.path().join("etc/shared"), 0o770).unwrap();
        let log = Log::new(home.path().join("log"), Arc::new(SystemClock), Zone::system(), false);
        let voice = Voice::new(log, 0);
        let (sender, taken) = channel();
        let sink = Box::new(Taker(Mutex::new(sender)));
        let intake = Intake::new(home.path(), sink, None, voice.clone(), false, ResponderSettings::default());
        let told: std::rc::Rc<RefCell<Vec<String>>> = std::rc::Rc::default();
        let list = std::rc::Rc::clone(&told);
        let tell: Box<dyn Fn(Outcome)> = Box::new(move |outcome: Outcome| {
            list.borrow_mut().push(format!("{} {}", outcome.order, outcome.kind.name()));
        });
        let orders = Orders::new(intake, Duration::from_secs(1), voice, tell);
        Bed { home, taken, told, orders }
    }

    fn order(id: &str, name: &str, ticketed: bool) -> Option<Errand> {
        let json = format!(
            r#"{{"version":1,"origin":{{"name":"n","module":"m"}},"command":"{name}","parameters":{{"extra_args":[],"alert":{{}}}}}}"#
        );
        let ticket = ticketed.then(|| Ticket::new(OrderId(id.into())));
        Some(Errand::Order(json.into_bytes(), ticket))
    }

    fn table(home: &Path, text: &str) {
        tld_sys::durable::replace(&home.join("etc/shared/ar.conf"), text.as_bytes(), 0o640).unwrap();
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn orders_wait_for_the_managers_files_and_keep_their_order() {
        let mut bed = bed();
        bed.orders.step(order("a", "drop0", true), at(1));
        bed.orders.step(order("b", "other0", true), at(1));
        bed.orders.step(order("a", "drop0", true), at(1));
        bed.orders.step(order("c", "drop0", true), at(1));
        bed.orders.step(Some(Errand::Cancel(OrderId("c".into()))), at(1));
        assert_eq!(bed.taken.try_iter().collect::<Vec<_>>(), ["withdrawn c"]);
        table(bed.home.path(), "drop0 - drop - 0\n");
        bed.orders.step(order("d", "drop0", true), at(2));
        assert_eq!(bed.taken.try_iter().collect::<Vec<_>>(), ["a", "d"]);
        assert!(bed.told.borrow().is_empty());
        bed.orders.step(Some(Errand::Files), at(2));
        assert_eq!(*bed.told.borrow(), ["b not-found"]);
    }

    #[test]
    fn an_unknown_name_is_told_in_time_and_a_plain_managers_at_once() {
        let mut bed = bed();
        bed.orders.step(order("plain", "drop0", false), at(1));
        assert!(bed.orders.held.is_empty());
        bed.orders.step(order("a", "drop0", true), at(1));
        bed.orders.step(None, at(6));
        assert!(bed.told.borrow().is_empty());
        bed.orders.step(None, at(7));
        assert_eq!(*bed.told.borrow(), ["a not-found"]);
        // Without time to wait there is no waiting.
        let Some(Errand::Order(json, Some(ticket))) = order("late", "drop0", true) else { panic!() };
        let ticket = Ticket { deadline_ns: Some(1), ..ticket };
        bed.orders.step(Some(Errand::Order(json, Some(ticket))), at(7));
        assert_eq!(bed.told.borrow().last().unwrap(), "late not-found");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut bed = bed();
        for n in 0..MOST + 10 {
            bed.orders.step(order(&format!("o{n}"), "drop0", true), at(1));
        }
        assert_eq!(bed.orders.held.len(), MOST);
    }
}
