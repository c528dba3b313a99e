//! The look at groups that we keep ourselves: one thread for all of them, which ends when there are none.
//!
//! Invariant: a group is looked at until nothing of it lives, or for five minutes after nobody waits for it any more.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::processes::Census;
use super::{Inner, Kind, Shared, locked};
use crate::clock::{Clock as _, Deadline, SystemClock};

/// Groups that are looked at.
#[derive(Debug, Default)]
pub(super) struct Kept {
    groups: Vec<(Arc<Inner>, Option<Deadline>)>,
    watched: bool,
}

/// Looks at a group from now on.
pub(super) fn keep(shared: &Arc<Shared>, group: &Arc<Inner>) {
    let mut kept = locked(&shared.kept);
    kept.groups.push((Arc::clone(group), None));
    if !kept.watched {
        let weak = Arc::downgrade(shared);
        let started = std::thread::Builder::new().name("groups".into()).spawn(move || work(&weak));
        kept.watched = started.is_ok();
    }
}

fn work(shared: &Weak<Shared>) {
    let mut pause = PAUSE;
    loop {
        let _ = crate::ready::readable(&[], pause);
        let Some(shared) = shared.upgrade() else { return };
        let groups: Vec<Arc<Inner>> =
            locked(&shared.kept).groups.iter().map(|(group, _)| Arc::clone(group)).collect();
        let begin = SystemClock.boot();
        let marked = groups.iter().any(|group| matches!(group.kind, Kind::Marked(_)));
        let counts = if marked { shared.census.counts() } else { HashMap::new() };
        let ended: Vec<bool> = groups.iter().map(|group| look(group, &shared.census, &counts)).collect();
        pause = PAUSE.max((SystemClock.boot() - begin) * SHARE).min(LONGEST_PAUSE);
        let mut kept = locked(&shared.kept);
        let mut at = 0;
        // Others may have been added behind these.
        kept.groups.retain_mut(|(group, until)| {
            let empty = ended.get(at).copied().unwrap_or(false);
            at += 1;
            if group.over.load(Ordering::SeqCst) == 0 {
                return true;
            }
            let stays = !empty && !until.get_or_insert_with(|| Deadline::after(LONGEST)).passed();
            if let (Kind::Marked(mark), false) = (&group.kind, stays) {
                shared.census.forget(mark);
            }
            stays
        });
        if kept.groups.is_empty() {
            kept.watched = false;
            return;
        }
    }
}

/// Stops a group that is above its bound; whether nothing of it lives.
fn look(group: &Inner, census: &Census, counts: &HashMap<Arc<str>, usize>) -> bool {
    let count = match &group.kind {
        Kind::Marked(mark) => counts.get(mark).copied().unwrap_or(0),
        Kind::Control { .. } => group.members(census).len(),
    };
    if group.bounds.processes.is_some_and(|most| count as u64 > most) {
        group.crowd.fetch_max(count as u64, Ordering::SeqCst);
        group.kill(census, &Deadline::after(PATIENCE));
    }
    count == 0
}

const PAUSE: Duration = Duration::from_millis(100);
/// So many times as long as the look took is the pause behind it.
const SHARE: u32 = 20;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);
