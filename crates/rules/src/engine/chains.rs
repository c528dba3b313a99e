//! Arrivals by key, newest first: a queue in the order of time, through which the arrivals of equal keys are chained.
//!
//! Whoever leaves the queue at its old end has left its chain too, for a chain ends where it points behind the queue:
//! expiring touches nothing but the oldest arrival, and looking a key up touches the arrivals of that key.
//! Invariant: chains run from newer to older arrivals.

use std::collections::VecDeque;

/// Arrivals that are asked for at once.
const CHUNK: usize = 512;
/// So many arrivals are freed of those that left sooner: memory counts more than time.
const LARGE: usize = 1 << 17;
/// No place, no event.
const NONE: u32 = u32::MAX;
/// Bits of a head that tell its place; the others are a sketch of the keys that share it. Tests get to the limits.
const PLACE: u32 = if cfg!(test) { 9 } else { 24 };
/// So many arrivals leave no bits for sketches.
const MANY: usize = 1 << (PLACE - 2);

/// One arrival of one key.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// In halves, so that a node needs no more than four bytes' alignment.
    key: [u32; 2],
    older: u32,
    at: u32,
    /// None when the arrival left its chain early.
    event: u32,
}

const VACANT: Node = Node { key: [0; 2], older: NONE, at: 0, event: NONE };

/// What a chain tells of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) at: u32,
    pub(super) event: u32,
}

/// Arrivals of one life time.
#[derive(Debug)]
pub(super) struct Chains {
    /// Seconds after which an arrival leaves.
    pub(super) timeframe: i64,
    chunks: VecDeque<Box<[Node]>>,
    spare: Option<Box<[Node]>>,
    /// Place of the first node of the first chunk.
    start: u32,
    /// The oldest arrival's place, and the next one's.
    first: u32,
    next: u32,
    /// Arrivals in between that left early.
    left: u32,
    /// The newest place of the keys that share a hash, below a sketch of those keys: a key that is not in there needs no
    /// look at an arrival, which most likely is in no cache.
    heads: Vec<u32>,
    /// Heads hold sketches.
    sketched: bool,
}

fn halves(key: u64) -> [u32; 2] {
    [key as u32, (key >> 32) as u32]
}

/// A key's bit above the place.
fn sketch_of(key: [u32; 2]) -> u32 {
    // Not the bits by which keys share a head.
    1 << (PLACE + key[1] % (u32::BITS - PLACE))
}

impl Chains {
    pub(super) fn new(timeframe: i64) -> Self {
        Self {
            timeframe,
            chunks: VecDeque::new(),
            spare: None,
            start: 0,
            first: 0,
            next: 0,
            left: 0,
            heads: Vec::new(),
            sketched: true,
        }
    }

    /// Memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.chunks.len() + usize::from(self.spare.is_some());
        chunks * CHUNK * size_of::<Node>() + self.heads.len() * size_of::<u32>()
    }

    /// When the oldest arrival came.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.first < self.next).then(|| self.node(self.first).at)
    }

    /// All arrivals that have not left, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = Arrival> {
        let nodes = (self.first..self.next).map(|place| self.node(place));
        nodes.filter(|node| node.event != NONE).map(|node| Arrival { at: node.at, event: node.event })
    }

    /// Arrivals of a key, newest first.
    pub(super) fn of(&self, key: u64) -> impl Iterator<Item = Arrival> {
        let key = halves(key);
        let mut place = self.head(key);
        std::iter::from_fn(move || {
            while self.there(place) {
                let node = self.node(place);
                place = node.older;
                if node.key == key {
                    return Some(Arrival { at: node.at, event: node.event });
                }
            }
            None
        })
    }

    /// Appends an arrival; false if it is surely the only one of its key. Times never run back.
    pub(super) fn push(&mut self, key: u64, arrival: Arrival) -> bool {
        let length = (self.next - self.first) as usize;
        let share = if length > LARGE { 4 } else { 2 };
        let sparse = self.left as usize * share > length && length > CHUNK;
        let last = if self.sketched { (1 << PLACE) - 1 } else { NONE };
        if length >= self.heads.len() || sparse || self.next >= last {
            self.rebuild();
        }
        self.chain(halves(key), arrival)
    }

    /// Appends an arrival and makes it the newest of its key. False if it is surely the only one.
    fn chain(&mut self, key: [u32; 2], Arrival { at, event }: Arrival) -> bool {
        let slot = self.slot(key);
        let head = self.heads[slot];
        let older = self.place_in(head);
        let sketch = if older == NONE { 0 } else { head & !((1 << PLACE) - 1) };
        let own = sketch_of(key);
        let place = self.append(Node { key, older, at, event });
        self.heads[slot] = if self.sketched { place | sketch | own } else { place };
        if self.sketched { sketch & own != 0 } else { older != NONE }
    }

    /// The place that a head tells, if it has not left.
    fn place_in(&self, head: u32) -> u32 {
        let place = if self.sketched && head != NONE { head & ((1 << PLACE) - 1) } else { head };
        if self.there(place) { place } else { NONE }
    }

    /// Takes out what a key has beyond its newest `most` arrivals, `surplus` at most.
    pub(super) fn trim(&mut self, key: u64, most: usize, surplus: usize, mut gone: impl FnMut(u32)) {
        let key = halves(key);
        let (mut kept, mut taken) = (0, 0);
        let mut before = NONE;
        let mut place = self.head(key);
        while taken < surplus && self.there(place) {
            let node = *self.node(place);
            if node.key == key && kept == most {
                taken += 1;
                self.left += 1;
                self.node_mut(place).event = NONE;
                // The newest ones stay, so there is one before.
                self.node_mut(before).older = node.older;
                gone(node.event);
            } else {
                kept += usize::from(node.key == key);
                before = place;
            }
            place = node.older;
        }
    }

    /// Takes out what came before `oldest`.
    pub(super) fn expire(&mut self, oldest: i64, mut gone: impl FnMut(u32)) {
        while self.first < self.next && i64::from(self.node(self.first).at) < oldest {
            self.pop(&mut gone);
        }
    }

    /// Takes out the oldest arrival, if there is one.
    pub(super) fn pop(&mut self, gone: &mut impl FnMut(u32)) {
        if self.first == self.next {
            return;
        }
        let event = self.node(self.first).event;
        self.first += 1;
        if (self.first - self.start) as usize == CHUNK {
            self.start = self.first;
            self.spare = self.chunks.pop_front();
        }
        match event {
            NONE => self.left -= 1,
            event => gone(event),
        }
    }

    /// Gives up memory that nothing is in.
    pub(super) fn tidy(&mut self) {
        self.spare = None;
        if self.first == self.next {
            *self = Self::new(self.timeframe);
        } else if self.heads.len() / 16 > (self.next - self.first) as usize {
            self.rebuild();
        }
    }

    fn there(&self, place: u32) -> bool {
        place != NONE && place >= self.first
    }

    fn slot(&self, key: [u32; 2]) -> usize {
        key[0] as usize & (self.heads.len() - 1)
    }

    /// Where the arrivals of a key begin.
    fn head(&self, key: [u32; 2]) -> u32 {
        let head = if self.heads.is_empty() { NONE } else { self.heads[self.slot(key)] };
        if self.sketched && head & sketch_of(key) == 0 { NONE } else { self.place_in(head) }
    }

    fn node(&self, place: u32) -> &Node {
        let place = (place - self.start) as usize;
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    fn node_mut(&mut self, place: u32) -> &mut Node {
        let place = (place - self.start) as usize;
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }

    fn append(&mut self, node: Node) -> u32 {
        let place = self.next;
        if (place - self.start) as usize == self.chunks.len() * CHUNK {
            let chunk = self.spare.take().unwrap_or_else(|| vec![VACANT; CHUNK].into());
            self.chunks.push_back(chunk);
        }
        self.next += 1;
        *self.node_mut(place) = node;
        place
    }

    /// Numbers all places anew, without those that left, and chains them by as many hashes as they need.
    fn rebuild(&mut self) {
        let length = (self.next - self.first - self.left) as usize;
        let skipped = (self.first - self.start) as usize;
        let nodes = (self.next - self.first) as usize;
        let slots = (length + length / 2).next_power_of_two().max(64);
        self.heads.clear();
        if self.heads.capacity() != slots {
            self.heads = Vec::with_capacity(slots);
        }
        self.heads.resize(slots, NONE);
        let old = std::mem::take(&mut self.chunks);
        (self.start, self.first, self.next, self.left) = (0, 0, 0, 0);
        self.sketched = length < MANY;
        let mut passed = 0;
        for chunk in old {
            for (at, node) in chunk.iter().enumerate() {
                let inside = (skipped..skipped + nodes).contains(&(passed + at));
                if inside && node.event != NONE {
                    self.chain(node.key, Arrival { at: node.at, event: node.event });
                }
            }
            passed += chunk.len();
            self.spare = Some(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push { key: u64, later: u32, times: usize },
        Expire { within: u32 },
        Tidy,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            // Keys with equal lower halves share a chain.
            40 => (0..40_u64, 0..3_u64, 0..2_u32, 1..3_usize)
                .prop_map(|(low, high, later, times)| Step::Push { key: low | high << 32, later, times }),
            4 => (0..200_u32).prop_map(|within| Step::Expire { within }),
            1 => Just(Step::Tidy),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_key_has_its_newest_arrivals_and_what_leaves_is_told_once(
            steps in proptest::collection::vec(step(), 0..3000),
            most in 1..6_usize,
        ) {
            let mut chains = Chains::new(0);
            let mut plain: Vec<(u64, Arrival)> = Vec::new();
            let (mut now, mut events) = (0, 0);
            for step in steps {
                let mut gone = Vec::new();
                let mut wanted = Vec::new();
                match step {
                    Step::Push { key, later, times } => {
                        now += later;
                        for _ in 0..times.min(most) {
                            let arrival = Arrival { at: now, event: events };
                            events += 1;
                            chains.push(key, arrival);
                            plain.push((key, arrival));
                        }
                        chains.trim(key, most, times.min(most), |event| gone.push(event));
                        let mine = plain.iter().filter(|(known, _)| *known == key).count();
                        for _ in most..mine {
                            let at = plain.iter().position(|(known, _)| *known == key).unwrap();
                            wanted.push(plain.remove(at).1.event);
                        }
                        let found: Vec<_> = chains.of(key).collect();
                        let kept = plain.iter().rev().filter(|(known, _)| *known == key);
                        prop_assert_eq!(found, kept.map(|(_, arrival)| *arrival).collect::<Vec<_>>());
                    }
                    Step::Expire { within } => {
                        let oldest = now.saturating_sub(within);
                        chains.expire(i64::from(oldest), |event| gone.push(event));
                        let old = plain.iter().filter(|(_, arrival)| arrival.at < oldest);
                        wanted.extend(old.map(|(_, arrival)| arrival.event));
                        plain.retain(|(_, arrival)| arrival.at >= oldest);
                    }
                    Step::Tidy => chains.tidy(),
                }
                gone.sort_unstable();
                wanted.sort_unstable();
                prop_assert_eq!(gone, wanted);
                prop_assert_eq!(chains.all().count(), plain.len());
            }
        }
    }

    #[test]
    fn a_noisy_key_leaves_no_more_than_it_may_keep() {
        let mut chains = Chains::new(0);
        for event in 0..100_000 {
            chains.push(7, Arrival { at: 0, event });
            chains.trim(7, 3, 1, |_| ());
        }
        assert!(chains.bytes() < 100_000, "{}", chains.bytes());
    }
}
