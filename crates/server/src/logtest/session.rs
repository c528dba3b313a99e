//! Sessions: an analyzer each, found by token. The one that was not asked for longest makes room for a new one.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use tld_model::Timestamp;
use tld_rules::{Analyzer, Settings};
use tld_sys::clock::Clock;

use super::RulesetSource;

/// Most sessions at a time.
pub(super) const MOST: usize = 64;
/// A session that nobody asked for so long is over.
pub(super) const IDLE: Duration = Duration::from_secs(900);
/// Most bytes of events that all sessions remember together.
const MEMORY: usize = 256 << 20;
/// Length of a token.
pub(super) const TOKEN: usize = 8;

/// One tester's memory.
#[derive(Debug)]
struct Session {
    token: String,
    analyzer: Analyzer,
    used: Duration,
}

/// All sessions, the one used last at the end.
pub(super) struct Sessions {
    source: RulesetSource,
    settings: Settings,
    clock: Arc<dyn Clock>,
    open: Vec<Session>,
    tokens: std::hash::RandomState,
    count: u64,
}

impl Sessions {
    pub(super) fn new(source: RulesetSource, settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let tokens = std::hash::RandomState::new();
        Self { source, settings, clock, open: Vec::new(), tokens, count: 0 }
    }

    /// The present moment.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }

    /// Ends sessions that nobody uses any more.
    pub(super) fn forget_idle(&mut self) {
        let now = self.clock.boot();
        self.open.retain(|session| now.saturating_sub(session.used) <= IDLE);
    }

    /// Whether this session is open.
    pub(super) fn knows(&self, token: &str) -> bool {
        self.open.iter().any(|session| session.token == token)
    }

    /// Opens a session; its token.
    pub(super) fn open(&mut self) -> String {
        if self.open.len() >= MOST {
            self.open.remove(0);
        }
        let analyzer = Analyzer::new((self.source)(), self.settings.clone());
        let token = self.fresh_token();
        self.open.push(Session { token: token.clone(), analyzer, used: self.clock.boot() });
        token
    }

    /// Uses a session: moves it to the end of the line of those to be replaced.
    pub(super) fn analyzer(&mut self, token: &str) -> Option<&mut Analyzer> {
        let place = self.open.iter().position(|session| session.token == token)?;
        let mut session = self.open.remove(place);
        session.used = self.clock.boot();
        self.open.push(session);
        self.make_room();
        self.open.last_mut().map(|session| &mut session.analyzer)
    }

    /// Ends a session; false if there is none of that token.
    pub(super) fn close(&mut self, token: &str) -> bool {
        let before = self.open.len();
        self.open.retain(|session| session.token != token);
        self.open.len() < before
    }

    /// Lets go of other sessions while all together remember too much.
    fn make_room(&mut self) {
        let bytes = |session: &Session| session.analyzer.memory().1;
        while self.open.len() > 1 && self.open.iter().map(bytes).sum::<usize>() > MEMORY {
            self.open.remove(0);
        }
    }

    fn fresh_token(&mut self) -> String {
        loop {
            self.count += 1;
            let token = format!("{:08x}", self.tokens.hash_one(self.count) & 0xffff_ffff);
            if !self.knows(&token) {
                return token;
            }
        }
    }
}
