//! Which file runs next, and which one has to make room. Every file has a lane of its own, and lanes take turns, so that
//! orders of one file wait for each other and not for those of another. A slot is for a file that works; one that rests
//! (all its processes sleep, and none used the processor since the last look) goes to a parked place, and so does one that
//! takes very long.
//! Invariant: one file never holds all slots or all parked places, so that files which hang delay at most themselves.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tld_sys::child::Resting;

/// The number of a running process, once there is one; 0 before.
pub(super) type Process = Arc<AtomicU32>;

/// How much may be in use at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Files that work.
    pub(super) slots: usize,
    /// Files that rest or take long.
    pub(super) parked: usize,
    /// Bytes of memory that those hold of their own.
    pub(super) memory: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    room: Room,
    lanes: HashMap<Arc<str>, Lane>,
    /// Lanes in which somebody waits, the next one first.
    turn: VecDeque<Arc<str>>,
    waiting: HashSet<i64>,
    running: HashMap<i64, Run>,
    parked: HashMap<i64, Parked>,
    /// Of those that are parked.
    memory: u64,
}

/// The orders of one file.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<i64>,
    running: usize,
    parked: usize,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running + self.parked == 0
    }
}

#[derive(Debug)]
struct Run {
    program: Arc<str>,
    began: Duration,
    process: Process,
    look: Duration,
    rested: Option<Resting>,
}

#[derive(Debug)]
struct Parked {
    program: Arc<str>,
    memory: u64,
    process: Process,
}

impl Slots {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            lanes: HashMap::new(),
            turn: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashMap::new(),
            parked: HashMap::new(),
            memory: 0,
        }
    }

    /// Puts an order at the end of its file's lane; one that waits there already keeps its place.
    pub(super) fn wait(&mut self, program: &Arc<str>, id: i64) {
        if !self.waiting.insert(id) {
            return;
        }
        let lane = self.lanes.entry(Arc::clone(program)).or_default();
        if lane.waiting.is_empty() {
            self.turn.push_back(Arc::clone(program));
        }
        lane.waiting.push_back(id);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many run, parked or not.
    pub(super) fn busy(&self) -> usize {
        self.running.len() + self.parked.len()
    }

    /// Takes these out of their lanes; what runs is not touched.
    pub(super) fn forget(&mut self, gone: impl Fn(i64) -> bool) {
        self.waiting.retain(|id| !gone(*id));
        self.lanes.values_mut().for_each(|lane| lane.waiting.retain(|id| !gone(*id)));
        let lanes = &self.lanes;
        self.turn.retain(|program| lanes.get(program).is_some_and(|lane| !lane.waiting.is_empty()));
        self.lanes.retain(|_, lane| !lane.is_empty());
    }

    /// The next order, if there is a slot for it: it holds that slot from now on.
    pub(super) fn next(&mut self, now: Duration) -> Option<i64> {
        if self.running.len() >= self.room.slots {
            return None;
        }
        let at = self.turn.iter().position(|program| self.may_run(program))?;
        let program = self.turn.remove(at)?;
        let lane = self.lanes.get_mut(&program)?;
        let id = lane.waiting.pop_front()?;
        lane.running += 1;
        if !lane.waiting.is_empty() {
            self.turn.push_back(Arc::clone(&program));
        }
        self.waiting.remove(&id);
        let (process, look) = (Process::default(), now + FIRST_LOOK);
        self.running.insert(id, Run { program, began: now, process, look, rested: None });
        Some(id)
    }

    fn may_run(&self, program: &Arc<str>) -> bool {
        self.lanes.get(program).is_some_and(|lane| lane.running < share(self.room.slots))
    }

    /// Where the number of a run's process is to be put.
    pub(super) fn process(&self, id: i64) -> Process {
        self.running.get(&id).map(|run| Arc::clone(&run.process)).unwrap_or_default()
    }

    /// The processes that run now.
    pub(super) fn processes(&self) -> impl Iterator<Item = (i64, u32)> + '_ {
        let running = self.running.iter().map(|(id, run)| (*id, &run.process));
        let all = running.chain(self.parked.iter().map(|(id, parked)| (*id, &parked.process)));
        all.map(|(id, process)| (id, process.load(Ordering::SeqCst))).filter(|(_, number)| *number > 0)
    }

    /// A run is over.
    pub(super) fn free(&mut self, id: i64) {
        let program = if let Some(run) = self.running.remove(&id) {
            self.lanes.entry(Arc::clone(&run.program)).or_default().running -= 1;
            run.program
        } else if let Some(parked) = self.parked.remove(&id) {
            self.memory -= parked.memory;
            self.lanes.entry(Arc::clone(&parked.program)).or_default().parked -= 1;
            parked.program
        } else {
            return;
        };
        if self.lanes.get(&program).is_some_and(Lane::is_empty) {
            self.lanes.remove(&program);
        }
    }

    /// When the next look at what runs is due; none while nobody waits or nobody could be parked.
    pub(super) fn next_look(&self) -> Option<Duration> {
        if self.waiting.is_empty() || self.parked.len() >= self.room.parked {
            return None;
        }
        self.running.values().map(|run| run.look).min()
    }

    /// Parks what rests or takes long, where others wait. `look` tells of a process by its number.
    pub(super) fn make_room(&mut self, now: Duration, look: impl Fn(u32) -> Option<Resting>) {
        if self.next_look().is_none_or(|due| due > now) {
            return;
        }
        let due: Vec<i64> =
            self.running.iter().filter(|(_, run)| run.look <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(run) = self.running.get_mut(&id) else { continue };
            let age = now.saturating_sub(run.began);
            let number = run.process.load(Ordering::SeqCst);
            let resting = (number > 0).then(|| look(number)).flatten();
            let rests = resting.is_some_and(|now| run.rested.is_some_and(|before| before.ran == now.ran));
            // The older it is, the more rarely.
            (run.rested, run.look) = (resting, now + (age / 2).clamp(AGAIN, SLOW));
            if rests || age >= SLOW {
                self.park(id, resting.map_or(UNKNOWN_MEMORY, |resting| resting.memory + KERNELS));
            }
        }
    }

    fn park(&mut self, id: i64, memory: u64) {
        let full = self.parked.len() >= self.room.parked || self.memory + memory > self.room.memory;
        let Some(lane) = self.running.get(&id).and_then(|run| self.lanes.get_mut(&run.program)) else {
            return;
        };
        if full || lane.parked >= share(self.room.parked) {
            return;
        }
        lane.running -= 1;
        lane.parked += 1;
        self.memory += memory;
        if let Some(run) = self.running.remove(&id) {
            self.parked.insert(id, Parked { program: run.program, memory, process: run.process });
        }
    }
}

/// The most of `all` that one file may hold.
fn share(all: usize) -> usize {
    (all - all / 4).max(1)
}

/// A file that takes longer than this to do its work is no short one.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// Between two looks at the least.
const AGAIN: Duration = Duration::from_millis(10);
/// A file that runs longer is parked although it works.
const SLOW: Duration = Duration::from_millis(500);
/// What a process that cannot be looked at is taken to hold.
const UNKNOWN_MEMORY: u64 = 2 << 20;
/// What the kernel and this process hold for a run.
const KERNELS: u64 = 128 << 10;

#[cfg(test)]
mod tests;
