//! The way of an event through the manager: analysis, alert, policy, dispatch, outputs, in this order. The response leaves
//! before anything is written.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::Duration;

use tld_model::{Alert, Event, Stage, Timestamp, Timings, Zone};
use tld_policy::Policy;
use tld_rules::{Analyzer, Category, Preparer, Ruleset, Verdict};
use tld_sys::clock::Clock;
use tld_sys::queue::{Receiver, Sender};

use crate::dispatch::{Considered, Dispatch};
use crate::lanes::{Arrival, Lanes, Sink};
use crate::log::Log;
use crate::logtime::LogTime;
use crate::output::{Note, Record, firewall};
use crate::sequencer::Sequencer;
use crate::statistics::{Counted, Statistics};

/// What a watcher of the pipeline is shown (the demo, tests). Called on the analysis thread: be quick.
pub trait Observer: Send {
    /// An event was judged.
    fn event(&mut self, event: &Event, verdict: &Verdict<'_>);
    /// It made an alert, with its id and what was considered because of it.
    fn alert(&mut self, event: &Event, alert: &Alert, id: &str, considered: &[Considered]);
}

/// Counters of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events judged.
    pub events: u64,
    /// Alerts written.
    pub alerts: u64,
    /// Orders sent.
    pub orders: u64,
    /// Responses that were bound but did not run.
    pub withheld: u64,
    /// Events of which a search was ended because it would have cost too much.
    pub ended: u64,
}

/// Which archives are kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Archives {
    /// `logall_json`.
    pub json: bool,
    /// `logall`.
    pub plain: bool,
}

/// Everything that follows from a verdict: one place at a time, in the order of the events.
pub struct Pipeline {
    /// The responses.
    pub policy: Arc<Policy>,
    /// Ids.
    pub sequencer: Sequencer,
    /// Orders.
    pub dispatch: Dispatch,
    /// Files.
    pub records: Sender<Record>,
    /// Archives asked for.
    pub archives: Archives,
    /// Local time of the archives.
    pub zone: Zone,
    /// Clock for the stages' times.
    pub clock: Arc<dyn Clock>,
    /// Set: rules count by the log's own time instead of arrival.
    pub log_time: Option<LogTime>,
    /// Counts of each hour; none for replays.
    pub statistics: Option<Statistics>,
    /// Write `firewall.log`.
    pub log_fw: bool,
    /// Where searches that were ended are told.
    pub log: Log,
    /// Watcher.
    pub observer: Option<Box<dyn Observer>>,
    /// Counters.
    pub counts: Counts,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// A new ruleset with the policy bound to it, ready to be taken by a running pipeline.
#[derive(Debug)]
pub struct Fresh {
    /// Decoders, rules, lists.
    pub ruleset: Arc<Ruleset>,
    /// Responses bound to them.
    pub policy: Arc<Policy>,
    /// Told once every following event is judged by them.
    pub taken: SyncSender<()>,
}

impl Pipeline {
    /// Analyses until the events' senders are gone, on so many threads. `fresh` is asked between events for a ruleset to
    /// change to. A single event is handled on this thread at once; others share the work when events queue up.
    pub fn run(
        mut self,
        analyzer: Analyzer,
        events: &Receiver<Event>,
        threads: usize,
        mut fresh: impl FnMut() -> Option<Fresh>,
    ) -> Counts {
        let (mut log_time, clock) = (self.log_time.take(), Arc::clone(&self.clock));
        let now = || Timestamp::from_nanos(clock.wall_nanos());
        let mut lanes = Lanes::new(analyzer, self, threads);
        let mut arrival = |mut event: Event| {
            let at = event.received;
            if let Some(log_time) = &mut log_time {
                event.received = log_time.of(&event);
            }
            Arrival { event, at }
        };
        loop {
            match events.recv_timeout(Duration::from_millis(200)) {
                Ok(event) => {
                    lanes.push(arrival(event));
                    for event in std::iter::from_fn(|| events.try_recv().ok()).take(AT_ONCE) {
                        lanes.push(arrival(event));
                    }
                    lanes.flush();
                }
                Err(RecvTimeoutError::Timeout) => lanes.between(|_, pipeline| pipeline.pass_hour(now())),
                Err(RecvTimeoutError::Disconnected) => return lanes.finish(|_, pipeline| pipeline.end()),
            }
            if let Some(Fresh { ruleset, policy, taken }) = fresh() {
                lanes.between(|analyzer, pipeline| {
                    analyzer.swap(ruleset);
                    pipeline.dispatch.swap(&policy);
                    pipeline.policy = policy;
                });
                // Whoever asked may have lost patience.
                let _ = taken.try_send(());
            }
        }
    }

    fn end(&mut self) -> Counts {
        let notes = self.statistics.as_mut().map(Statistics::finish);
        self.write_notes(notes.unwrap_or_default());
        self.counts
    }

    /// Says so for the first such event and for each that doubles their number: senders choose how many there are.
    fn tell_ended(&mut self, event: &Event) {
        self.counts.ended += 1;
        if self.counts.ended.is_power_of_two() {
            self.log.warning(&format!(
                "a line of {} bytes from `{}` made searches too costly, and rules may have missed it ({} such lines so far); \
                 `threatlockdown logtest --trace` shows it",
                event.text.len(),
                String::from_utf8_lossy(&event.location).escape_debug(),
                self.counts.ended
            ));
        }
    }

    /// Adds to the hour's counts, and alerts if they are excessive.
    fn count(&mut self, counted: Counted, at: Timestamp, preparer: &Preparer) {
        self.pass_hour(at);
        let Some(statistics) = &mut self.statistics else { return };
        statistics.count(counted);
        if let Some((rule, event)) = statistics.excess(at) {
            let alert = preparer.own_alert(&rule, &event);
            self.raise(&event, alert, Timings::default());
        }
    }

    fn pass_hour(&mut self, now: Timestamp) {
        let notes = self.statistics.as_mut().map(|statistics| statistics.pass(now));
        self.write_notes(notes.unwrap_or_default());
    }

    fn write_notes(&self, notes: Vec<Note>) {
        for note in notes {
            let _ = self.records.send(Record::Note(note));
        }
    }

    fn firewall(&self, verdict: &Verdict<'_>, at: Timestamp) -> Option<Record> {
        let wanted = self.log_fw && verdict.decoded.category == Category::Firewall;
        let line = wanted.then(|| firewall::line(&verdict.decoded, &self.zone.local(at)))??;
        Some(Record::Firewall { at, line })
    }

    fn raise(&mut self, event: &Event, alert: Alert, timings: Timings) {
        let place = self.sequencer.place(&alert);
        let policy = Arc::clone(&self.policy);
        let decisions = policy.decide(&alert);
        let considered = if decisions.is_empty() {
            Vec::new()
        } else {
            let now = self.now();
            self.dispatch.send(&alert, &place.id, &decisions, timings, now)
        };
        let sent = considered.iter().filter(|considered| considered.result.is_ok()).count() as u64;
        self.counts.orders += sent;
        self.counts.withheld += considered.len() as u64 - sent;
        if let Some(observer) = &mut self.observer {
            observer.alert(event, &alert, &place.id, &considered);
        }
        if alert.logged {
            self.counts.alerts += 1;
            let _ = self.records.send(Record::Alert(Box::new((alert, place))));
        }
    }

    fn archive(&self, verdict: &Verdict<'_>, at: Timestamp, preparer: &Preparer) -> Option<Record> {
        let alive: &[u8] = b"ossec-keepalive";
        let location = &*verdict.decoded.location;
        if !self.archives.json && !self.archives.plain
            || location == alive
            || location.ends_with(b"->ossec-keepalive")
        {
            return None;
        }
        let json = if self.archives.json { archive_json(verdict, at, preparer) } else { Vec::new() };
        let plain = if self.archives.plain { self.archive_plain(verdict, at) } else { Vec::new() };
        Some(Record::Archive { at, json, plain })
    }

    /// `YYYY Mon DD HH:MM:SS <host>-><location> <full_log>`, without the host for agents (analysis-output 3).
    fn archive_plain(&self, verdict: &Verdict<'_>, at: Timestamp) -> Vec<u8> {
        let decoded = &verdict.decoded;
        let mut line = format!("{} ", self.zone.local(at).plain_stamp()).into_bytes();
        if !decoded.location.starts_with(b"(") {
            line.extend_from_slice(decoded.hostname().unwrap_or_default());
            line.extend_from_slice(b"->");
        }
        line.extend_from_slice(&decoded.location);
        line.push(b' ');
        line.extend_from_slice(&decoded.full_log);
        line
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.wall_nanos())
    }
}

impl Sink for Pipeline {
    /// The response leaves before anything is written.
    fn take(&mut self, arrival: &Arrival, verdict: &mut Verdict<'_>, preparer: &mut Preparer) {
        let event = &arrival.event;
        let mut timings = Timings::default();
        timings.mark(Stage::Event, arrival.at);
        self.counts.events += 1;
        self.dispatch.watch(event);
        if let Some(observer) = &mut self.observer {
            observer.event(event, verdict);
        }
        if verdict.ended_searches > 0 {
            self.tell_ended(event);
        }
        let archive = self.archive(verdict, event.received, preparer);
        let firewall = self.firewall(verdict, event.received);
        let counted = counted(verdict);
        let effects = std::mem::take(&mut verdict.effects);
        if let Some(alert) = verdict.alert.take() {
            timings.mark(Stage::Alert, self.now());
            self.raise(event, alert, timings);
        }
        for record in effects.into_iter().map(Record::State).chain(archive).chain(firewall) {
            // The writer ends last; a closed queue means that the process is going down.
            let _ = self.records.send(record);
        }
        self.count(counted, event.received, preparer);
    }
}

/// Events that are taken from the queue before the other questions are asked again.
const AT_ONCE: usize = 4_096;

fn archive_json(verdict: &Verdict<'_>, at: Timestamp, preparer: &Preparer) -> Vec<u8> {
    let mut line = Vec::new();
    preparer.event_json(verdict).write(&format!("{}.0", at.secs()), &mut line);
    line
}

fn counted(verdict: &Verdict<'_>) -> Counted {
    Counted {
        rule: verdict.rule.as_ref().map(|rule| (rule.id, rule.level)),
        alert: verdict.alert.as_ref().is_some_and(|alert| alert.logged),
        syscheck: verdict.decoder().is_some_and(|name| name.starts_with("syscheck_")),
        firewall: verdict.decoded.category == Category::Firewall,
    }
}
