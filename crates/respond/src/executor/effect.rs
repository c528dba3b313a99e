//! One effect in memory. Invariant: a block that just stands costs a few hundred bytes; what only its outcome will say is
//! read from the journal when it is needed again.

use std::sync::{Arc, LazyLock};

use tld_model::{Order, OrderId, RuleId, Target, Timings};

use crate::actions::{Action, Local, Subject};
use crate::journal::{State, Until};

/// What an outcome needs of an order, so that thousands of alerts need not stay in memory.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) order: OrderId,
    pub(crate) response: String,
    pub(crate) alert_id: String,
    pub(crate) rule: Option<RuleId>,
    pub(crate) target: Target,
    pub(crate) timings: Timings,
    pub(crate) timeout: u64,
    pub(crate) steps: Vec<u32>,
    pub(crate) reported: bool,
}

impl From<&Order> for Head {
    fn from(order: &Order) -> Self {
        Self {
            order: order.id.clone(),
            response: order.response.clone(),
            alert_id: order.alert_id.clone(),
            rule: order.rule,
            target: order.target.clone(),
            timings: order.timings,
            timeout: order.timeout_secs,
            steps: order.options.repeated_offenders.clone(),
            reported: order.options.reported,
        }
    }
}

/// Stands in where the journal cannot be read: an undo is more important than what is said about it.
static UNKNOWN: LazyLock<Head> = LazyLock::new(|| Head {
    order: OrderId("unknown".into()),
    response: "unknown".into(),
    alert_id: "0".into(),
    rule: None,
    target: Target::None,
    timings: Timings::default(),
    timeout: 0,
    steps: Vec::new(),
    reported: false,
});

/// One effect that is not closed.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) id: i64,
    /// Absent while a block just stands.
    pub(crate) head: Option<Box<Head>>,
    pub(crate) program: Arc<str>,
    pub(crate) action: Option<(&'static dyn Action, Subject)>,
    /// One of our own actions outside the firewall.
    pub(crate) local: Option<Box<(&'static dyn Local, Subject)>>,
    /// What it found before it changed anything.
    pub(crate) prior: Option<Box<str>>,
    /// Told by a file or an action outside the firewall.
    pub(crate) key: Option<Box<str>>,
    pub(crate) until: Option<Until>,
    pub(crate) length: u64,
    pub(crate) attempts: u32,
    pub(crate) state: State,
    /// It is put back, not begun: no word of it in the log of responses.
    pub(crate) quiet: bool,
    pub(crate) failed: bool,
    /// Lifted by hand: ends as soon as it may, and does not count as a finished block.
    pub(crate) lifted: bool,
    /// After a crash: once its `delete` ran, it is added again.
    pub(crate) again: bool,
    /// Its first outcome was told before a restart.
    pub(crate) told: bool,
    /// Begun although the journal could not be written: the kernel itself will end it.
    pub(crate) unjournaled: bool,
    /// The file was told to abort: another effect of this key is active until then.
    pub(crate) aborted: Option<Box<Aborted>>,
}

impl Effect {
    pub(crate) fn new(id: i64, head: Option<Head>, program: Arc<str>) -> Self {
        Self {
            id,
            head: head.map(Box::new),
            program,
            action: None,
            local: None,
            prior: None,
            key: None,
            until: None,
            length: 0,
            attempts: 0,
            state: State::Accepted,
            quiet: false,
            failed: false,
            lifted: false,
            again: false,
            told: false,
            unjournaled: false,
            aborted: None,
        }
    }

    /// What is known of its order.
    pub(crate) fn head(&self) -> &Head {
        self.head.as_deref().unwrap_or(&UNKNOWN)
    }

    pub(crate) fn head_mut(&mut self) -> &mut Head {
        self.head.get_or_insert_with(|| Box::new(UNKNOWN.clone()))
    }

    /// Whom one of our own actions acts on.
    pub(crate) fn subject(&self) -> Option<&Subject> {
        let local = || self.local.as_deref().map(|(_, subject)| subject);
        self.action.as_ref().map(|(_, subject)| subject).or_else(local)
    }

    /// The journal's key.
    pub(crate) fn full_key(&self) -> Option<String> {
        match &self.action {
            Some((_, subject)) => Some(key(&self.program, subject)),
            None => self.key.as_deref().map(str::to_owned),
        }
    }
}

/// The key of a block, as the contract joins it: base name and subject.
pub(crate) fn key(program: &str, subject: &Subject) -> String {
    format!("{}-{subject}", program.rsplit('/').next().unwrap_or(program))
}

/// Why a file was told to abort.
#[derive(Debug, Clone)]
pub(crate) enum Aborted {
    Active(Option<Until>),
    Refused(String),
}

/// The effects that hold one spot of the firewall: nearly always one.
#[derive(Debug)]
pub(crate) enum Holders {
    One(i64),
    Many(Vec<i64>),
}

impl Holders {
    pub(crate) fn ids(&self) -> &[i64] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    pub(crate) fn add(&mut self, id: i64) {
        match self {
            Self::One(only) if *only == id => {}
            Self::One(only) => *self = Self::Many(vec![*only, id]),
            Self::Many(ids) if ids.contains(&id) => {}
            Self::Many(ids) => ids.push(id),
        }
    }

    /// True when nobody holds it any more.
    pub(crate) fn remove(&mut self, id: i64) -> bool {
        match self {
            Self::One(only) => *only == id,
            Self::Many(ids) => {
                ids.retain(|one| *one != id);
                ids.is_empty()
            }
        }
    }
}
