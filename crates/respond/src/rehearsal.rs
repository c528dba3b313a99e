//! What the executor would do with a series of orders, told without doing any of it: for replays of logs.
//!
//! The rules are the executor's own: the guards of the configuration, one effect for each key, `repeated_offenders`, the
//! bound of live effects. What only the live host can tell (its own addresses, gateways, name servers, administrators) is
//! left out. Invariant: pure, and time never goes back: an order of the past is taken as given now.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use tld_model::{Target, Timestamp};
use tld_pattern::Network;

use crate::Limits;
use crate::actions::disable_account::{NO_USER, is_fit};
use crate::actions::firewall_drop::NO_SOURCE;
use crate::actions::{self, Ours};
use crate::escalation::{self, Offender};
use crate::executor::BLOCKERS;
use crate::guard;

/// One order, as far as a rehearsal needs it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The caller's number of the response, for [`Rehearsal::most`].
    pub response: usize,
    /// Whose host it would run on; effects of different hosts are different ones.
    pub endpoint: &'a str,
    /// Executable as configured.
    pub executable: &'a str,
    /// What it acts on.
    pub target: &'a Target,
    /// Configured seconds until the revert; 0 = stays.
    pub timeout_secs: u64,
    /// Escalation steps of the response itself; empty = the endpoint's.
    pub steps: &'a [u32],
}

/// What would have become of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Became {
    /// A new effect.
    Began {
        /// Seconds until its end; 0 = without end, or done at once.
        length: u64,
        /// Longer than configured, because of earlier effects on the same target.
        escalated: bool,
    },
    /// The effect is in place already; its end moves out.
    Extended,
    /// Not done, for this reason.
    Refused(String),
}

/// The largest number of effects in place at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Most {
    /// So many.
    pub count: usize,
    /// When that was reached.
    pub at: Timestamp,
}

/// An endpoint that only thinks.
#[derive(Debug)]
pub struct Rehearsal {
    steps: Vec<u32>,
    protected: Vec<Network>,
    live: usize,
    effects: HashMap<String, Effect>,
    ends: BinaryHeap<Reverse<(Timestamp, String)>>,
    offenders: HashMap<String, Offender>,
    counts: HashMap<usize, (usize, Most)>,
    most: Most,
    now: Timestamp,
}

#[derive(Debug)]
struct Effect {
    response: usize,
    /// None = without end.
    until: Option<Timestamp>,
    length: u64,
    escalates: bool,
}

/// Whether what an executable does lasts, and on whom.
enum Nature {
    Lasts,
    Once,
}

impl Rehearsal {
    /// An endpoint with these escalation steps in minutes and these protected networks, without memory.
    pub fn new(repeated_offenders: Vec<u32>, protected: Vec<Network>) -> Self {
        Self {
            steps: repeated_offenders,
            protected,
            live: Limits::default().live,
            effects: HashMap::new(),
            ends: BinaryHeap::new(),
            offenders: HashMap::new(),
            counts: HashMap::new(),
            most: Most::default(),
            now: Timestamp::from_nanos(i64::MIN),
        }
    }

    /// Takes an order given at `at`.
    pub fn order(&mut self, asked: &Asked<'_>, at: Timestamp) -> Became {
        self.now = self.now.max(at);
        self.end();
        let name = stem(asked.executable);
        let nature = match nature(name, asked) {
            Ok(nature) => nature,
            Err(literal) => return Became::Refused(literal.into()),
        };
        if let (Target::Address(address), true) = (asked.target, guarded(name))
            && let Some(objection) = guard::standing(&self.protected, *address)
        {
            return Became::Refused(objection);
        }
        if matches!(nature, Nature::Once) {
            return Became::Began { length: 0, escalated: false };
        }
        let key = format!("{}/{name}-{}", asked.endpoint, asked.target);
        if let Some(effect) = self.effects.get_mut(&key) {
            let asked_end = end(self.now, asked.timeout_secs);
            if later(asked_end, effect.until) {
                effect.until = asked_end;
                effect.length = asked_end.map_or(0, |_| asked.timeout_secs.max(effect.length));
            }
            return Became::Extended;
        }
        if self.effects.len() >= self.live {
            return Became::Refused(format!("{} effects are live already", self.live));
        }
        self.begin(asked, key)
    }

    /// The most effects that one response had in place at a time.
    pub fn most_of(&self, response: usize) -> Most {
        self.counts.get(&response).map_or(Most::default(), |(_, most)| *most)
    }

    /// The most effects that all of them had in place at a time.
    pub fn most(&self) -> Most {
        self.most
    }

    fn begin(&mut self, asked: &Asked<'_>, key: String) -> Became {
        let steps = if asked.steps.is_empty() { &self.steps } else { asked.steps };
        let length = escalation::effective(asked.timeout_secs, steps, self.offenders.get(&key), self.now);
        let until = end(self.now, length);
        let effect = Effect { response: asked.response, until, length, escalates: !steps.is_empty() };
        self.ends.extend(until.map(|until| Reverse((until, key.clone()))));
        self.effects.insert(key, effect);
        let (count, most) = self.counts.entry(asked.response).or_default();
        *count += 1;
        if *count > most.count {
            *most = Most { count: *count, at: self.now };
        }
        if self.effects.len() > self.most.count {
            self.most = Most { count: self.effects.len(), at: self.now };
        }
        Became::Began { length, escalated: length > asked.timeout_secs }
    }

    /// Ends what is over by now.
    fn end(&mut self) {
        while let Some(Reverse((until, _))) = self.ends.peek()
            && *until <= self.now
        {
            let Some(Reverse((until, key))) = self.ends.pop() else { return };
            // An extended effect waits here under its former end.
            let Some(present) = self.effects.get(&key).and_then(|effect| effect.until) else { continue };
            if present > until {
                self.ends.push(Reverse((present, key)));
                continue;
            }
            let Some(effect) = self.effects.remove(&key) else { continue };
            if let Some((count, _)) = self.counts.get_mut(&effect.response) {
                *count -= 1;
            }
            if effect.escalates && effect.length > 0 {
                self.offend(key, until, effect.length);
            }
        }
    }

    fn offend(&mut self, key: String, ended: Timestamp, length: u64) {
        if self.offenders.len() >= MOST_OFFENDERS {
            let now = self.now;
            self.offenders.retain(|_, offender| offender.steps(now) > 0);
        }
        if self.offenders.len() < MOST_OFFENDERS || self.offenders.contains_key(&key) {
            let after = Offender::after(self.offenders.get(&key).copied(), ended, length);
            self.offenders.insert(key, after);
        }
    }
}

/// What an executable of this name does; the contract's literal text where the alert gives it nobody to act on.
fn nature(name: &str, asked: &Asked<'_>) -> Result<Nature, &'static str> {
    if BLOCKERS.contains(&name) && !matches!(asked.target, Target::Address(_)) {
        return Err(NO_SOURCE);
    }
    match actions::of_name(name) {
        Some(Ours::Local(action)) => {
            if action.names() == ["disable-account"] {
                let Target::User(user) = asked.target else { return Err(NO_USER) };
                return is_fit(user).then_some(Nature::Lasts).ok_or(NO_USER);
            }
            // Files and processes are found in the alert by the action itself; here each of them counts once.
            let known = *asked.target != Target::None || action.names() == ["isolate-host"];
            Ok(if action.lasts() && known { Nature::Lasts } else { Nature::Once })
        }
        Some(Ours::Firewall(_)) => Ok(Nature::Lasts),
        // A file of the operator has an entry only while a timeout runs.
        None if asked.timeout_secs > 0 => Ok(Nature::Lasts),
        None => Ok(Nature::Once),
    }
}

fn guarded(name: &str) -> bool {
    BLOCKERS.contains(&name) || actions::of_name(name).is_some()
}

/// `firewall-drop.sh` and `firewall-drop` are one.
fn stem(executable: &str) -> &str {
    executable.rsplit_once('.').map_or(executable, |(stem, _)| stem)
}

fn end(now: Timestamp, length: u64) -> Option<Timestamp> {
    (length > 0).then(|| now.plus(Duration::from_secs(length)))
}

/// Without end is later than any end.
fn later(one: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

const MOST_OFFENDERS: usize = 500_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Target {
        Target::Address(text.parse().unwrap())
    }

    fn asked(target: &Target) -> Asked<'_> {
        let executable = "firewall-drop";
        Asked { response: 0, endpoint: "", executable, target, timeout_secs: 600, steps: &[] }
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    const FIRST: Became = Became::Began { length: 600, escalated: false };

    #[test]
    fn an_effect_in_place_is_extended_and_one_that_is_over_begins_again() {
        let mut rehearsal = Rehearsal::new(Vec::new(), Vec::new());
        let (one, two) = (address("203.0.113.7"), address("203.0.113.8"));
        assert_eq!(rehearsal.order(&asked(&one), at(0)), FIRST);
        assert_eq!(rehearsal.order(&asked(&two), at(10)), FIRST);
        assert_eq!(rehearsal.order(&asked(&one), at(599)), Became::Extended);
        assert_eq!(rehearsal.order(&asked(&one), at(1_198)), Became::Extended);
        assert_eq!(rehearsal.order(&asked(&one), at(1_798)), FIRST, "over at this very second");
        assert_eq!(
            (rehearsal.most(), rehearsal.most_of(0)),
            (Most { count: 2, at: at(10) }, rehearsal.most())
        );
    }

    #[test]
    fn a_repeated_offender_is_held_longer() {
        let mut rehearsal = Rehearsal::new(vec![30, 60], Vec::new());
        let target = address("203.0.113.7");
        let mut order = |secs| rehearsal.order(&asked(&target), at(secs));
        assert_eq!(order(0), FIRST);
        assert_eq!(order(700), Became::Began { length: 1_800, escalated: true });
        assert_eq!(order(2_400), Became::Extended);
        assert_eq!(order(3_000), Became::Began { length: 3_600, escalated: true });
        assert_eq!(order(30 * 86_400), FIRST, "a quiet month forgives");
    }

    #[test]
    fn guards_of_the_configuration_refuse_and_name_themselves() {
        let mut rehearsal = Rehearsal::new(Vec::new(), vec!["198.51.100.0/24".parse().unwrap()]);
        let mut why = |target: Target| match rehearsal.order(&asked(&target), at(0)) {
            Became::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(address("198.51.100.7")).contains("protected by the configuration (198.51.100.0/24)"));
        assert!(why(address("127.0.0.1")).contains("loopback"));
        assert_eq!(why(Target::None), NO_SOURCE);
    }

    #[test]
    fn what_does_not_last_is_done_every_time() {
        let mut rehearsal = Rehearsal::new(Vec::new(), Vec::new());
        for executable in ["webhook", "custom-script.sh"] {
            let asked = Asked { executable, timeout_secs: 0, ..asked(&Target::None) };
            for _ in 0..2 {
                let done = Became::Began { length: 0, escalated: false };
                assert_eq!(rehearsal.order(&asked, at(0)), done);
            }
        }
        assert_eq!(rehearsal.most().count, 0);
    }

    #[test]
    fn an_account_that_no_response_may_lock_is_refused() {
        let mut rehearsal = Rehearsal::new(Vec::new(), Vec::new());
        for (user, fit) in [("bob", true), ("root", false), ("a b", false)] {
            let target = Target::User(user.into());
            let asked = Asked { executable: "disable-account", ..asked(&target) };
            let refused = Became::Refused(NO_USER.into());
            assert_eq!(rehearsal.order(&asked, at(0)) == refused, !fit, "{user}");
        }
    }

    #[test]
    fn one_address_on_two_hosts_is_two_effects() {
        let mut rehearsal = Rehearsal::new(Vec::new(), Vec::new());
        let target = address("203.0.113.7");
        for endpoint in ["001", "002"] {
            let asked = Asked { endpoint, ..asked(&target) };
            assert_eq!(rehearsal.order(&asked, at(0)), FIRST);
        }
        assert_eq!(rehearsal.most().count, 2);
    }
}
