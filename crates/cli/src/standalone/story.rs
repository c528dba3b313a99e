//! The demo's account of what happens, line by line, for a person who watches.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tld_model::{Alert, Event, OrderId, Outcome, OutcomeKind, Target, Timestamp, Zone};
use tld_rules::Verdict;
use tld_server::dispatch::Considered;
use tld_server::pipeline::Observer;

use crate::paint::Paint;

/// One thing that happened.
#[derive(Debug)]
pub(super) enum Scene {
    /// A line was read and judged.
    Line { at: Timestamp, text: String, judged: String },
    /// A rule fired.
    Alert {
        at: Timestamp,
        rule: String,
        level: u8,
        description: String,
        id: String,
        considered: Vec<Considered>,
    },
    /// The responder reported.
    Outcome(Box<Outcome>),
}

/// Passes the pipeline's doings on to the teller.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Lines of this file are told; those of the responses' own log only count as alerts.
    pub(super) watched: PathBuf,
    pub(super) scenes: Sender<Scene>,
}

impl Observer for Watcher {
    fn event(&mut self, event: &Event, verdict: &Verdict<'_>) {
        if *event.location != *self.watched.as_os_str().as_encoded_bytes() {
            return;
        }
        let judged = verdict
            .rule
            .as_ref()
            .map_or_else(|| "no rule".to_owned(), |rule| format!("rule {} level {}", rule.id, rule.level));
        let text = String::from_utf8_lossy(&event.text).into_owned();
        let _ = self.scenes.send(Scene::Line { at: event.received, text, judged });
    }

    fn alert(&mut self, event: &Event, alert: &Alert, id: &str, considered: &[Considered]) {
        let _ = self.scenes.send(Scene::Alert {
            at: event.received,
            rule: alert.rule.id.to_string(),
            level: alert.rule.level,
            description: String::from_utf8_lossy(alert.rule.description()).into_owned(),
            id: id.to_owned(),
            considered: considered.to_vec(),
        });
    }
}

/// What the summary counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) lines: u32,
    pub(super) alerts: u32,
    pub(super) applied: Vec<Target>,
    pub(super) reverted: Vec<Target>,
    pub(super) dry_run: Vec<Target>,
    pub(super) failed: u32,
    pub(super) fastest: Option<Duration>,
    pub(super) slowest: Option<Duration>,
    open: HashMap<OrderId, (Target, Option<Timestamp>)>,
    pending: HashMap<OrderId, Target>,
}

impl Tally {
    /// Orders without a final word: sent and unanswered, or in force.
    pub(super) fn unfinished(&self) -> usize {
        self.open.len() + self.pending.len()
    }

    fn measure(&mut self, outcome: &Outcome) -> Option<Duration> {
        let nanos = outcome.timings.verified.checked_sub(outcome.timings.event).filter(|n| *n > 0)?;
        let took = Duration::from_nanos(u64::try_from(nanos).ok()?);
        self.fastest = Some(self.fastest.map_or(took, |old| old.min(took)));
        self.slowest = Some(self.slowest.map_or(took, |old| old.max(took)));
        Some(took)
    }
}

/// Tells scenes in lines of a fixed shape: time, word, account.
#[derive(Debug)]
pub(super) struct Teller {
    paint: Paint,
    zone: Zone,
    pub(super) tally: Tally,
    countdown: bool,
    width: usize,
}

impl Teller {
    pub(super) fn new(zone: Zone) -> Self {
        let width = tld_sys::terminal::columns().unwrap_or(0);
        Self { paint: Paint::stdout(), zone, tally: Tally::default(), countdown: false, width }
    }

    /// Tells one scene.
    pub(super) fn tell(&mut self, scene: Scene) {
        self.clear_countdown();
        match scene {
            Scene::Line { at, text, judged } => {
                self.tally.lines += 1;
                let text = text.splitn(6, ' ').last().unwrap_or_default().trim_start().to_owned();
                let judged = self.paint.dim(&format!("[{judged}]"));
                self.line(at, &self.paint.dim("event"), 5, &format!("{text}  {judged}"));
            }
            Scene::Alert { at, rule, level, description, id, considered } => {
                self.tally.alerts += 1;
                // Low alerts are in alerts.json; the story is about those that are answered.
                if level >= 7 || !considered.is_empty() {
                    let text = format!(
                        "rule {rule} (level {level}) {description}  {}",
                        self.paint.dim(&format!("id {id}"))
                    );
                    self.line(at, &self.paint.bad("ALERT"), 5, &text);
                }
                for one in considered {
                    self.consider(at, one);
                }
            }
            Scene::Outcome(outcome) => self.outcome(&outcome),
        }
    }

    fn consider(&mut self, at: Timestamp, one: Considered) {
        let (word, text) = match one.result {
            Ok(order) => {
                self.tally.pending.insert(order, one.target.clone());
                (self.paint.act("response"), format!("{} chosen for {}", one.response, one.target))
            }
            Err(reason) => {
                (self.paint.warn("withheld"), format!("{} for {}: {reason}", one.response, one.target))
            }
        };
        self.line(at, &word, 8, &text);
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.tally.pending.remove(&outcome.order);
        let proof = outcome.evidence.read_back.as_deref().unwrap_or(&outcome.detail);
        let word = outcome.kind.name();
        let (painted, text) = match outcome.kind {
            OutcomeKind::Applied => {
                self.tally.applied.push(outcome.target.clone());
                self.tally.open.insert(outcome.order.clone(), (outcome.target.clone(), outcome.until));
                let took = self.tally.measure(outcome).map_or_else(String::new, |took| {
                    format!(
                        "  {}",
                        self.paint
                            .dim(&format!("[{:.1} ms from log line to proof]", took.as_secs_f64() * 1e3))
                    )
                });
                (self.paint.good(word), format!("{}: {proof}{took}", outcome.target))
            }
            OutcomeKind::Reverted => {
                self.tally.open.remove(&outcome.order);
                self.tally.reverted.push(outcome.target.clone());
                (self.paint.good(word), format!("{}: {proof}", outcome.target))
            }
            OutcomeKind::AlreadyActive => {
                (self.paint.dim(word), format!("{}: {}", outcome.target, outcome.detail))
            }
            OutcomeKind::DryRun => {
                self.tally.dry_run.push(outcome.target.clone());
                (self.paint.warn(word), format!("{}: {}", outcome.target, outcome.detail))
            }
            _ => {
                self.tally.failed += 1;
                (self.paint.bad(word), format!("{}: {}", outcome.target, outcome.detail))
            }
        };
        self.line(outcome.at, &painted, word.len(), &text);
    }

    /// On a terminal, one line that counts down and is written over.
    pub(super) fn count_down(&mut self, now: Timestamp) {
        let left = |(target, until): &(Target, Option<Timestamp>)| {
            until.map(|until| format!("{target} {} s", until.since(now).as_secs_f64().ceil()))
        };
        let list: Vec<_> = self.tally.open.values().filter_map(left).collect();
        if !self.paint.colour() || list.is_empty() {
            return;
        }
        print!("\r\x1b[K{}", self.paint.dim(&format!("   time left: {}", list.join(", "))));
        let _ = std::io::stdout().flush();
        self.countdown = true;
    }

    fn clear_countdown(&mut self) {
        if std::mem::take(&mut self.countdown) {
            print!("\r\x1b[K");
        }
    }

    fn line(&self, at: Timestamp, word: &str, visible: usize, text: &str) {
        let local = self.zone.local(at);
        let time = format!("{:02}:{:02}:{:02}.{:03}", local.hour, local.minute, local.second, local.millis);
        let pad = " ".repeat(10_usize.saturating_sub(visible));
        let text: String = text.chars().filter(|c| !c.is_control() || *c == '\x1b').collect();
        let room = if self.width > 60 { self.width - 25 } else { usize::MAX };
        println!("{}  {word}{pad}{}", self.paint.dim(&time), shorten(&text, room));
    }
}

/// Cuts text to a number of visible characters; colour sequences do not count and are closed.
fn shorten(text: &str, room: usize) -> String {
    let (mut seen, mut out, mut escape, mut painted) = (0, String::new(), false, false);
    for c in text.chars() {
        if c == '\x1b' {
            (escape, painted) = (true, true);
        } else if escape {
            escape = c != 'm';
        } else if seen == room {
            if painted {
                out.push_str("\x1b[0m");
            }
            out.push('…');
            return out;
        } else {
            seen += 1;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_does_not_count_when_a_line_is_shortened() {
        assert_eq!(shorten("\x1b[2mabc\x1b[0m", 3), "\x1b[2mabc\x1b[0m");
        assert_eq!(shorten("abcdef", 3), "abc…");
        assert_eq!(shorten("\x1b[2mabcdef\x1b[0m", 3), "\x1b[2mabc\x1b[0m…");
    }
}
