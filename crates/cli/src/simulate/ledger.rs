//! Which responses would have run, on whom and when, and which would not, and why.
//! Invariant: what is shown is bounded, what is counted is complete.

use std::collections::HashMap;

use serde::Serialize;
use tld_config::{Response, Settings};
use tld_model::{Alert, Target, Timestamp};
use tld_policy::{Decision, Destination, Policy, Reason};
use tld_respond::rehearsal::{Asked, Became, Most, Rehearsal};

/// Different targets that are listed.
const LISTED: usize = 200_000;
/// Different refusals that are listed.
const REFUSALS: usize = 10_000;

/// First and last time of something that happened `times`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) count: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl Times {
    pub(super) fn once(at: Timestamp) -> Self {
        Self { count: 1, first: at, last: at }
    }

    pub(super) fn again(&mut self, at: Timestamp) {
        self.count += 1;
        self.first = self.first.min(at);
        self.last = self.last.max(at);
    }
}

/// What one response did to one target.
#[derive(Debug, Clone)]
pub(super) struct Acted {
    pub(super) times: Times,
    /// Orders that came while the effect was in place.
    pub(super) extended: u64,
    /// The longest effect in seconds; 0 = none that ends.
    pub(super) longest: u64,
    /// Effects longer than configured, for a repeated offender.
    pub(super) escalated: u64,
    /// The rule that began the first one.
    pub(super) rule: tld_model::RuleId,
}

/// The kinds of refusals, which the summary groups by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    AllowListed,
    Contested,
    OwnLog,
    NoAddress,
    NoAgent,
    Endpoint,
}

/// Key of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Refusal {
    pub(super) response: usize,
    pub(super) kind: Kind,
    pub(super) target: Target,
    pub(super) why: String,
}

/// Counts of one response.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) began: u64,
    pub(super) extended: u64,
    pub(super) escalated: u64,
    pub(super) refused: u64,
    pub(super) most: Most,
}

/// The responses of a replay.
pub(super) struct Ledger {
    rehearsal: Rehearsal,
    pub(super) acted: HashMap<(usize, String, Target), Acted>,
    pub(super) refused: HashMap<Refusal, Times>,
    pub(super) totals: Vec<Totals>,
    /// Targets and refusals beyond what is listed.
    pub(super) unlisted: u64,
}

impl Ledger {
    pub(super) fn new(settings: &Settings, policy: &Policy) -> Self {
        let responder = &settings.responder;
        Self {
            rehearsal: Rehearsal::new(responder.repeated_offenders.clone(), responder.protected.clone()),
            acted: HashMap::new(),
            refused: HashMap::new(),
            totals: vec![Totals::default(); policy.responses().len()],
            unlisted: 0,
        }
    }

    /// Follows one alert; the number of responses that began.
    pub(super) fn follow(&mut self, policy: &Policy, alert: &Alert) -> u64 {
        let mut began = 0;
        for decision in policy.decide(alert) {
            let Some(response) =
                policy.responses().iter().position(|one| std::ptr::eq(one, decision.response))
            else {
                continue;
            };
            match &decision.outcome {
                Ok(destination) => began += u64::from(self.order(response, destination, &decision, alert)),
                Err(reason) => self.refuse(
                    Refusal {
                        response,
                        kind: kind(reason),
                        target: decision.target.clone(),
                        why: reason.to_string(),
                    },
                    alert.at,
                ),
            }
        }
        began
    }

    /// The most that were in place at a time, of all responses.
    pub(super) fn most(&self) -> Most {
        self.rehearsal.most()
    }

    /// Takes over what the rehearsal counted.
    pub(super) fn finish(&mut self) {
        for (response, totals) in self.totals.iter_mut().enumerate() {
            totals.most = self.rehearsal.most_of(response);
        }
    }

    /// Whether an effect began.
    fn order(
        &mut self,
        number: usize,
        destination: &Destination,
        decision: &Decision<'_>,
        alert: &Alert,
    ) -> bool {
        let response: &Response = decision.response;
        let endpoint = match destination {
            Destination::Here => String::new(),
            Destination::Agent(id) => id.to_string(),
            Destination::All => "all".into(),
        };
        let became = self.rehearsal.order(
            &Asked {
                response: number,
                endpoint: &endpoint,
                executable: &response.executable,
                target: &decision.target,
                timeout_secs: response.timeout_secs,
                steps: &response.repeated_offenders,
            },
            alert.at,
        );
        let begins = matches!(became, Became::Began { .. });
        match became {
            Became::Refused(why) => {
                let target = decision.target.clone();
                self.refuse(Refusal { response: number, kind: Kind::Endpoint, target, why }, alert.at);
            }
            Became::Extended => {
                self.totals[number].extended += 1;
                if let Some(acted) = self.acted.get_mut(&(number, endpoint, decision.target.clone())) {
                    acted.extended += 1;
                }
            }
            Became::Began { length, escalated } => {
                self.totals[number].began += 1;
                self.totals[number].escalated += u64::from(escalated);
                self.begin((number, endpoint, decision.target.clone()), length, escalated, alert);
            }
        }
        begins
    }

    fn begin(&mut self, key: (usize, String, Target), length: u64, escalated: bool, alert: &Alert) {
        if let Some(acted) = self.acted.get_mut(&key) {
            acted.times.again(alert.at);
            acted.longest = acted.longest.max(length);
            acted.escalated += u64::from(escalated);
        } else if self.acted.len() < LISTED {
            let acted = Acted {
                times: Times::once(alert.at),
                extended: 0,
                longest: length,
                escalated: u64::from(escalated),
                rule: alert.rule.id,
            };
            self.acted.insert(key, acted);
        } else {
            self.unlisted += 1;
        }
    }

    fn refuse(&mut self, refusal: Refusal, at: Timestamp) {
        self.totals[refusal.response].refused += 1;
        if let Some(times) = self.refused.get_mut(&refusal) {
            times.again(at);
        } else if self.refused.len() < REFUSALS {
            self.refused.insert(refusal, Times::once(at));
        } else {
            self.unlisted += 1;
        }
    }
}

fn kind(reason: &Reason) -> Kind {
    match reason {
        Reason::AllowListed { .. } => Kind::AllowListed,
        Reason::Contested { .. } => Kind::Contested,
        Reason::OwnLog => Kind::OwnLog,
        Reason::NoAgent | Reason::UnknownAgent(_) => Kind::NoAgent,
        Reason::NoAddress { .. } => Kind::NoAddress,
        _ => Kind::Endpoint,
    }
}
