//! The last step of analysis: from what was found to an alert that can be written.
//! Invariant: nothing here looks at anything but the event, its rules and what was found.

use std::sync::Arc;

use tld_model::{Alert, AlertRule, Frame};
use tld_pattern::budget;

use super::{Effect, Mode, Prepared, Preparer, Verdict, Winner};
use crate::alert::{self, Chosen, Picture, Shape};
use crate::rule::condition::Moment;
use crate::rule::{Index, Rule};
use crate::{Decoded, StaticField, Texts};

/// An event that was compared with earlier ones. [`Preparer::finish`] makes a [`Verdict`] of it.
#[derive(Debug)]
pub struct Judged<'e> {
    pub(super) prepared: Prepared<'e>,
    pub(super) finding: Option<Finding>,
    pub(super) last_events: Texts,
    pub(super) previous_log: Option<Vec<u8>>,
    pub(super) effects: Vec<Effect>,
}

/// The rule that an event is reported under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finding {
    pub(super) rule: Index,
    pub(super) fired: u32,
    /// No alert.
    pub(super) silent: bool,
    /// The rule that won is inside its `ignore` window.
    pub(super) ignored: bool,
}

impl Preparer {
    /// Makes the alert.
    pub fn finish<'e>(&mut self, judged: Judged<'e>) -> Verdict<'e> {
        let rule = judged.finding.as_ref().map(|finding| self.winner(&judged, finding));
        let alerting = judged.finding.filter(|finding| !finding.silent);
        let alert = match &rule {
            Some(winner) if alerting.is_some() => Some(self.alert(&judged, winner)),
            _ => None,
        };
        let Judged { prepared, last_events, previous_log, effects, .. } = judged;
        let level = prepared.ruleset.options.log_alert_level;
        Verdict {
            alert_flag: alert.as_ref().is_some_and(|alert| alert.rule.level >= level),
            decoded: prepared.decoded,
            rule,
            alert,
            last_events,
            previous_log,
            effects,
            ended_searches: prepared.ended,
            ruleset: prepared.ruleset,
            outline: prepared.outline,
        }
    }

    /// The object of archives.json, or what logtest shows (with level 0, and without `full_log` where the rule says so).
    pub fn event_json(&self, verdict: &Verdict<'_>) -> Frame {
        let shape = match self.settings.mode {
            Mode::Daemon => Shape::Archive,
            Mode::Logtest => Shape::Logtest,
        };
        let rules = &verdict.ruleset.rules;
        let made =
            verdict.rule.as_ref().map(|winner| described(&rules.all[winner.index], winner, &verdict.decoded));
        let chosen = verdict.rule.as_ref().zip(made.as_deref()).map(|(winner, description)| Chosen {
            rule: &rules.all[winner.index],
            description,
            fired: winner.fired,
        });
        let decoder = verdict.decoded.decoder.map(|id| verdict.ruleset.decoders.info(id));
        let picture = Picture {
            settings: &self.settings,
            event: &verdict.decoded,
            decoder,
            rule: chosen,
            last_events: &verdict.last_events,
            previous_log: verdict.previous_log.as_deref(),
            local: self.settings.zone.local(verdict.decoded.event.received),
        };
        picture.json(shape, &mut Vec::with_capacity(2048))
    }

    fn winner(&mut self, judged: &Judged<'_>, finding: &Finding) -> Winner {
        let ruleset = &judged.prepared.ruleset;
        let rule = &ruleset.rules.all[finding.rule];
        let texts = self.copies.of(ruleset, finding.rule);
        Winner {
            id: rule.info.id,
            level: rule.info.level,
            description: match &texts.description {
                Some(description) => Some(Arc::clone(description)),
                None if finding.silent => None,
                None => Some(alert::expand(&rule.info.description, &judged.prepared.decoded).into()),
            },
            groups: Arc::clone(&texts.groups),
            fired: finding.fired,
            file: Arc::clone(&texts.file),
            line: rule.info.line,
            index: finding.rule,
        }
    }

    fn alert(&mut self, judged: &Judged<'_>, winner: &Winner) -> Alert {
        let Prepared { decoded: event, ruleset, origins, .. } = &judged.prepared;
        let rule = &ruleset.rules.all[winner.index];
        let description = described(rule, winner, event);
        let known = judged.prepared.second.or(self.second);
        let moment = Moment::after(event.event.received, &self.settings.zone, known);
        let picture = Picture {
            settings: &self.settings,
            event,
            decoder: event.decoder.map(|id| ruleset.decoders.info(id)),
            rule: Some(Chosen { rule, description: &description, fired: winner.fired }),
            last_events: &judged.last_events,
            previous_log: judged.previous_log.as_deref(),
            local: *moment.local(),
        };
        self.second = moment.known();
        budget::begin();
        let target = |field| event.field(field).map(<[u8]>::to_vec);
        let (srcip, dstuser) = (target(StaticField::SrcIp), target(StaticField::DstUser));
        let contested = if rule.info.no_ar || (srcip.is_none() && dstuser.is_none()) {
            Vec::new()
        } else {
            let contested = ruleset.decoders.contested_from(event, origins).into_iter();
            contested.flat_map(|(field, values)| values.into_iter().map(move |v| (field.name(), v))).collect()
        };
        let buffer = &mut self.buffer;
        Alert {
            at: event.event.received,
            rule: AlertRule {
                id: winner.id,
                level: winner.level,
                description: description.to_vec(),
                groups: Arc::clone(&winner.groups),
            },
            agent: Arc::clone(&event.event.agent),
            json: picture.json(Shape::Alert, buffer),
            plain: if self.settings.with_plain { picture.plain(buffer) } else { Frame::default() },
            srcip,
            dstuser,
            logged: rule.info.log,
            mail: rule.info.mail,
            no_response: rule.info.no_ar,
            contested,
        }
    }
}

/// The description of a winner, made now if it was not yet.
fn described(rule: &Rule, winner: &Winner, event: &Decoded<'_>) -> Arc<[u8]> {
    let made = winner.description.as_ref().map(Arc::clone);
    made.unwrap_or_else(|| alert::expand(&rule.info.description, event).into())
}
