//! Heals what others removed from the firewall: a flush, a reload, a hand. The kernel tells which elements went, and
//! those are looked at; a slow round over all of them, piece by piece, finds what nobody told. Nothing is ever listed.
//! Invariant: elements that keep being removed are put back ever more slowly, and said aloud.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tld_sys::nft::Spot;

use crate::actions::Subject;
use crate::executor::Executor;
use crate::journal::State;
use crate::kernel::Seen;
use crate::log::escape;

/// What somebody else did to our table.
#[derive(Debug, Default)]
pub(crate) struct Disturbance {
    /// The name of that process, if it is known.
    pub(crate) by: Option<String>,
    /// Elements that were removed.
    pub(crate) spots: Vec<Spot>,
    /// Rules or chains were removed: what the sets hold is perhaps no longer dropped.
    pub(crate) rules: bool,
    /// Sets or the table are gone, or it is not known what is.
    pub(crate) all: bool,
}

impl Disturbance {
    pub(crate) fn concerns(&self) -> bool {
        self.rules || self.all || !self.spots.is_empty()
    }

    fn merge(&mut self, other: Self) {
        self.by = other.by.or(self.by.take());
        self.rules |= other.rules;
        self.all |= other.all;
        if self.spots.len() + other.spots.len() > MOST_SPOTS {
            (self.all, self.spots) = (true, Vec::new());
        } else {
            self.spots.extend(other.spots);
        }
    }
}

/// A look at every effect in turn.
#[derive(Debug)]
struct Round {
    after: i64,
    reason: String,
    /// Something is known to be missing: as fast as orders allow.
    urgent: bool,
    mended: Mended,
}

/// What was put back.
#[derive(Debug, Default)]
struct Mended {
    wanted: usize,
    done: usize,
    shown: Vec<String>,
    held_back: usize,
    first_held: Option<String>,
}

/// What the reconciler remembers.
#[derive(Debug, Default)]
pub(crate) struct Reconciler {
    last: Option<Duration>,
    looked: Option<Duration>,
    pending: Option<Disturbance>,
    round: Option<Round>,
    heals: HashMap<Subject, VecDeque<Duration>>,
    unreachable: bool,
    alarmed: Option<Duration>,
    /// Effects that should be in the firewall and could not be put back, or are held back.
    missing: BTreeSet<i64>,
    /// Effects outside the firewall that are being put back.
    repairs: BTreeSet<i64>,
    /// Troubles that were told, with when.
    told: HashMap<String, Duration>,
    /// Elements put back since the start.
    pub(crate) healed: u64,
    /// Attempts to put something back that failed.
    pub(crate) heal_failed: u64,
}

impl Reconciler {
    /// How long it can wait.
    pub(crate) fn pause(&self) -> Option<Duration> {
        match &self.round {
            _ if self.pending.is_some() => Some(SETTLE),
            Some(round) if round.urgent => Some(Duration::ZERO),
            Some(_) => Some(PIECE_PAUSE),
            None => None,
        }
    }

    /// How many effects are known not to be where they should be.
    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// An effect could not be put back.
    pub(crate) fn failed(&mut self, id: i64) {
        self.missing.insert(id);
        self.heal_failed += 1;
    }

    /// An effect that is over need not be anywhere.
    pub(crate) fn over(&mut self, id: i64) {
        self.missing.remove(&id);
        self.repairs.remove(&id);
    }

    /// An effect outside the firewall is put back now.
    pub(crate) fn repair(&mut self, id: i64) {
        self.repairs.insert(id);
    }

    /// Whether an effect was put back just now, and not begun.
    pub(crate) fn repaired(&mut self, id: i64) -> bool {
        self.repairs.remove(&id)
    }

    /// An effect is not where it should be, and nothing is done about it now.
    pub(crate) fn held_back(&mut self, id: i64) {
        self.missing.insert(id);
    }

    /// Whether a trouble that lasts may be told now: once a minute.
    pub(crate) fn may_tell(&mut self, trouble: &str, now: Duration) -> bool {
        self.told.retain(|_, at| now.saturating_sub(*at) < MINUTE);
        let quiet = self.told.len() < MOST_TRACKED && !self.told.contains_key(trouble);
        if quiet {
            self.told.insert(trouble.to_owned(), now);
        }
        quiet
    }

    /// Remembers what happened until it is looked into.
    pub(crate) fn disturbed(&mut self, what: Disturbance) {
        self.pending.get_or_insert_default().merge(what);
    }

    /// Whether an element may be put back now, which is then counted.
    pub(crate) fn may_heal(&mut self, subject: &Subject, now: Duration) -> bool {
        if self.heals.len() >= MOST_TRACKED && !self.heals.contains_key(subject) {
            return true;
        }
        let times = self.heals.entry(subject.clone()).or_default();
        while times.front().is_some_and(|at| now.saturating_sub(*at) > MINUTE) {
            times.pop_front();
        }
        if times.len() >= MOST_HEALS {
            return false;
        }
        times.push_back(now);
        true
    }
}

impl Executor {
    /// Looks into what was told, goes on with a round, or begins one now and then. While orders come (not `idle`) a round
    /// that nothing hurries goes on rarely.
    pub(crate) fn reconcile(&mut self, idle: bool) {
        let now = self.boot();
        let Some(poll) = self.kernel_mut().map(|kernel| kernel.poll()) else { return };
        let state = self.reconciler();
        let settled = state.looked.is_none_or(|at| now.saturating_sub(at) >= SETTLE);
        if settled && let Some(what) = state.pending.take() {
            state.looked = Some(now);
            let who = what.by.map_or_else(|| "somebody else".into(), |by| format!("`{}`", escape(&by)));
            let reason = format!("{who} changed the firewall");
            if what.rules || what.all {
                self.ensure();
            }
            if what.all {
                return self.begin_round(reason, true);
            }
            let ids: Vec<i64> = what.spots.iter().flat_map(|spot| self.holders(*spot).to_vec()).collect();
            let mut mended = Mended::default();
            self.examine(&ids, &mut mended);
            return self.tell_mended(&mended, &reason);
        }
        if state.round.is_some() {
            let pause = if idle { PIECE_PAUSE } else { BUSY_PAUSE };
            let due = state.looked.is_none_or(|at| now.saturating_sub(at) >= pause);
            let urgent = state.round.as_ref().is_some_and(|round| round.urgent);
            if urgent || due {
                self.go_on();
            }
        } else if state.last.is_none() {
            state.last = Some(now);
        } else if state.last.is_some_and(|last| now.saturating_sub(last) >= poll) {
            self.ensure();
            self.begin_round("somebody else changed the firewall".into(), false);
        }
    }

    /// Begins a round over all effects and looks at its first piece.
    pub(crate) fn begin_round(&mut self, reason: String, urgent: bool) {
        let now = self.boot();
        let state = self.reconciler();
        state.last = Some(now);
        state.round = Some(Round { after: i64::MIN, reason, urgent, mended: Mended::default() });
        self.go_on();
    }

    /// A whole round at once, before there are orders that could wait.
    pub(crate) fn survey(&mut self, reason: &str) {
        self.ensure();
        self.begin_round(reason.to_owned(), true);
        while self.reconciler().round.is_some() {
            self.go_on();
        }
    }

    fn ensure(&mut self) {
        let ensured = self.kernel_mut().map_or(Ok(()), crate::kernel::Kernel::ensure);
        match ensured {
            Ok(()) => self.reconciler().unreachable = false,
            Err(error) => self.unreachable(&error.to_string()),
        }
    }

    fn unreachable(&mut self, why: &str) {
        if !std::mem::replace(&mut self.reconciler().unreachable, true) {
            self.say(&format!("ALARM: the firewall cannot be read: {}", escape(why)));
        }
    }

    fn go_on(&mut self) {
        let now = self.boot();
        self.reconciler().looked = Some(now);
        let Some(mut round) = self.reconciler().round.take() else { return };
        let ids = self.after(round.after, PIECE);
        self.examine(&ids, &mut round.mended);
        match ids.last() {
            Some(last) if ids.len() == PIECE => {
                round.after = *last;
                self.reconciler().round = Some(round);
            }
            _ => self.tell_mended(&round.mended, &round.reason),
        }
    }

    /// Looks at these effects and puts back what is missing or has a wrong end, in one batch.
    fn examine(&mut self, ids: &[i64], mended: &mut Mended) {
        let now = self.boot();
        let mut spots: Vec<(Spot, i64)> = Vec::new();
        for id in ids {
            if !self.is(*id, State::Active) {
                continue;
            }
            let Some((_, subject)) = self.effect_of(*id).and_then(|effect| effect.action.as_ref()) else {
                continue;
            };
            spots.extend(subject.spots().map(|spot| (spot, *id)));
        }
        let asked: Vec<Spot> = spots.iter().map(|(spot, _)| *spot).collect();
        let Some(kernel) = self.kernel_mut().filter(|_| !asked.is_empty()) else { return };
        let leased = kernel.keeps_leases();
        let seen = match kernel.look(&asked) {
            Ok(seen) => seen,
            Err(error) => return self.unreachable(&error.to_string()),
        };
        self.reconciler().unreachable = false;
        // An effect with several ports is gone when all of them are.
        let mut wrong: Vec<(i64, bool)> = Vec::new();
        for ((spot, id), seen) in spots.iter().zip(seen) {
            let gone = seen == Seen::Absent;
            match wrong.last_mut() {
                Some((last, all_gone)) if last == id => *all_gone &= gone,
                _ if is_wrong(seen, self.lease(*spot).filter(|_| leased)) => wrong.push((*id, gone)),
                _ => {}
            }
        }
        let (mut lost, mut heal) = (Vec::new(), Vec::new());
        for (id, gone) in wrong {
            let Some((_, subject)) = self.effect_of(id).and_then(|effect| effect.action.clone()) else {
                continue;
            };
            if self.reconciler().may_heal(&subject, now) {
                if gone { &mut lost } else { &mut heal }.push((id, subject));
            } else {
                self.reconciler().missing.insert(id);
                mended.held_back += 1;
                mended.first_held.get_or_insert_with(|| subject.to_string());
            }
        }
        self.restore(&lost, true, mended);
        self.restore(&heal, false, mended);
    }

    fn restore(&mut self, heal: &[(i64, Subject)], absent: bool, mended: &mut Mended) {
        let ids: Vec<i64> = heal.iter().map(|(id, _)| *id).collect();
        let results = self.enforce(&ids, absent);
        mended.wanted += heal.len();
        for (id, subject) in heal {
            match results.get(id) {
                Some(Ok(_)) => {
                    mended.done += 1;
                    let state = self.reconciler();
                    state.healed += 1;
                    state.missing.remove(id);
                }
                Some(Err(why)) => {
                    self.say(&format!("ALARM: {subject} cannot be blocked again: {}", escape(why)));
                    self.reconciler().failed(*id);
                }
                None => {}
            }
            if mended.shown.len() < SHOWN {
                mended.shown.push(subject.to_string());
            }
        }
    }

    fn tell_mended(&mut self, mended: &Mended, reason: &str) {
        let now = self.boot();
        if mended.wanted > 0 {
            let more = if mended.wanted > mended.shown.len() { ", …" } else { "" };
            self.say(&format!(
                "{} of {} blocks put back ({}{more}) because {reason}; to lift one: threatlockdown responses revert ADDRESS",
                mended.done,
                mended.wanted,
                mended.shown.join(", "),
            ));
        }
        let state = self.reconciler();
        state.heals.retain(|_, times| times.back().is_some_and(|at| now.saturating_sub(*at) <= MINUTE));
        let quiet = state.alarmed.is_none_or(|at| now.saturating_sub(at) >= MINUTE);
        if let Some(first) = mended.first_held.as_ref().filter(|_| quiet) {
            state.alarmed = Some(now);
            let count = mended.held_back;
            self.say(&format!(
                "ALARM: {first} ({count} in all) was removed from the firewall more than {MOST_HEALS} times a minute \
                 because {reason}; put back at a slower pace"
            ));
        }
    }
}

/// Whether an element is not as it is wanted. One that ends within the second was perhaps ended by the kernel itself.
fn is_wrong(seen: Seen, wanted: Option<Duration>) -> bool {
    match (seen, wanted) {
        (Seen::Absent, Some(left)) => left >= Duration::from_secs(1),
        (Seen::Present(None), None) => false,
        (Seen::Present(Some(seen)), Some(left)) => seen.abs_diff(left) > TOLERANCE,
        _ => true,
    }
}

/// Time that a burst of notifications gets to settle.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);
/// Effects looked at in one go: some milliseconds of the executor's time.
const PIECE: usize = 1_024;
/// Between the pieces of a round that nothing hurries.
const PIECE_PAUSE: Duration = Duration::from_millis(100);
/// The same while orders come.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
const MOST_SPOTS: usize = 10_000;
/// Subjects whose heals are counted one by one; a flush of more is healed all the same.
const MOST_TRACKED: usize = 50_000;
const TOLERANCE: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const MOST_HEALS: usize = 5;
const SHOWN: usize = 5;
