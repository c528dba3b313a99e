//! Sessions: an analyzer each, found by token. The one that was not asked for longest makes room for a new one.
//!
//! Invariant: the list is locked only to find, add or take out; an event is judged under its own session's lock alone.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tld_config::RuleTest;
use tld_model::Timestamp;
use tld_rules::{Analyzer, Settings};
use tld_sys::clock::Clock;

use super::RulesetSource;

/// Most bytes of events that all sessions remember together.
const MEMORY: usize = 256 << 20;
/// Length of a token.
pub(super) const TOKEN: usize = 8;

/// One tester's memory.
#[derive(Debug)]
pub(super) struct Session {
    analyzer: Mutex<Analyzer>,
    /// What it remembered when it was last used.
    bytes: AtomicUsize,
}

impl Session {
    /// Judges something in this session, after whoever does so now.
    pub(super) fn with<T>(&self, judge: impl FnOnce(&mut Analyzer) -> T) -> T {
        let mut analyzer = self.analyzer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = judge(&mut analyzer);
        self.bytes.store(analyzer.memory().1, Ordering::Relaxed);
        result
    }
}

#[derive(Debug)]
struct Entry {
    token: String,
    session: Arc<Session>,
    used: Duration,
}

#[derive(Default)]
struct Open {
    /// The one used last at the end.
    entries: Vec<Entry>,
    count: u64,
}

/// All sessions.
pub(super) struct Sessions {
    source: RulesetSource,
    settings: Settings,
    limits: RuleTest,
    clock: Arc<dyn Clock>,
    tokens: std::hash::RandomState,
    open: Mutex<Open>,
}

impl Sessions {
    pub(super) fn new(
        source: RulesetSource,
        settings: Settings,
        limits: RuleTest,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let tokens = std::hash::RandomState::new();
        Self { source, settings, limits, clock, tokens, open: Mutex::default() }
    }

    fn list(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present moment.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    /// Ends sessions that nobody uses any more.
    pub(super) fn forget_idle(&self) {
        let now = self.clock.boot();
        let idle = self.limits.session_timeout;
        self.list().entries.retain(|entry| now.saturating_sub(entry.used) <= idle);
    }

    /// Opens a session; its token.
    pub(super) fn open(&self) -> (String, Arc<Session>) {
        let analyzer = Analyzer::new((self.source)(), self.settings.clone());
        let session = Arc::new(Session { analyzer: Mutex::new(analyzer), bytes: AtomicUsize::new(0) });
        let mut open = self.list();
        if open.entries.len() >= usize::from(self.limits.max_sessions) {
            open.entries.remove(0);
        }
        let token = loop {
            open.count += 1;
            let token = format!("{:08x}", self.tokens.hash_one(open.count) & 0xffff_ffff);
            if !open.entries.iter().any(|entry| entry.token == token) {
                break token;
            }
        };
        open.entries.push(Entry {
            token: token.clone(),
            session: Arc::clone(&session),
            used: self.clock.boot(),
        });
        (token, session)
    }

    /// A session to use: it moves to the end of the line of those to be replaced.
    pub(super) fn session(&self, token: &str) -> Option<Arc<Session>> {
        let mut open = self.list();
        let place = open.entries.iter().position(|entry| entry.token == token)?;
        let mut entry = open.entries.remove(place);
        entry.used = self.clock.boot();
        let session = Arc::clone(&entry.session);
        open.entries.push(entry);
        // Others go while all together remember too much.
        let bytes = |entry: &Entry| entry.session.bytes.load(Ordering::Relaxed);
        while open.entries.len() > 1 && open.entries.iter().map(bytes).sum::<usize>() > MEMORY {
            open.entries.remove(0);
        }
        Some(session)
    }

    /// Ends a session; false if there is none of that token.
    pub(super) fn close(&self, token: &str) -> bool {
        let entries = &mut self.list().entries;
        let before = entries.len();
        entries.retain(|entry| entry.token != token);
        entries.len() < before
    }
}
