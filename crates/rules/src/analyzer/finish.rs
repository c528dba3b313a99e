//! The last step of analysis: from what was found to an alert that can be written.
//! Invariant: nothing here looks at anything but the event, its rules and what was found.

use std::sync::Arc;

use tld_model::{Alert, AlertRule, Frame};
use tld_pattern::budget;

use super::{Mode, Prepared, Preparer, Verdict, Winner};
use crate::alert::{self, Chosen, Picture, Renderer, Shape};
use crate::rule::condition::Moment;
use crate::rule::{Index, Rule};
use crate::{Decoded, StaticField};

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
    /// Makes the alert of an event that was judged.
    pub fn finish(&mut self, judged: &mut Prepared<'_>) {
        self.conclude(&mut judged.0);
    }

    pub(super) fn conclude(&mut self, verdict: &mut Verdict<'_>) {
        let Some(finding) = verdict.course.finding else { return };
        let info = &verdict.ruleset.rules.all[finding.rule].info;
        verdict.rule =
            Some(Winner { id: info.id, level: info.level, fired: finding.fired, index: finding.rule });
        if !finding.silent {
            verdict.alert_flag = info.level >= verdict.ruleset.options.log_alert_level;
            verdict.alert = Some(self.alert(verdict, finding));
        }
    }

    /// The object of archives.json, or what logtest shows (with level 0, and without `full_log` where the rule says so).
    pub fn event_json(&self, verdict: &Verdict<'_>) -> Frame {
        let shape = match self.settings.mode {
            Mode::Daemon => Shape::Archive,
            Mode::Logtest => Shape::Logtest,
        };
        let ruleset = &verdict.ruleset;
        let event = &verdict.decoded;
        let rule = verdict.rule.as_ref().map(|winner| (&ruleset.rules.all[winner.index], winner.fired));
        let expanded = rule.and_then(|(rule, _)| expanded(rule, event));
        let picture = Picture {
            settings: &self.settings,
            event,
            assesses: event.decoder.is_some_and(|id| ruleset.decoders.assesses(id)),
            decoders: &ruleset.shown,
            rule: rule.map(|(rule, fired)| Chosen {
                rule,
                description: expanded.as_deref().unwrap_or(&rule.info.description),
                fired,
            }),
            last_events: &verdict.last_events,
            previous_log: verdict.previous_log.as_deref(),
            moment: &Moment::new(event.event.received, &self.settings.zone),
        };
        picture.json(shape, &mut Renderer::new(&self.settings))
    }

    fn alert(&mut self, verdict: &Verdict<'_>, finding: Finding) -> Alert {
        let Verdict { decoded: event, ruleset, course, .. } = verdict;
        let rule = &ruleset.rules.all[finding.rule];
        self.copies.fetch(finding.rule);
        let expanded = expanded(rule, event);
        let known = course.second.or(self.second);
        let moment = Moment::after(event.event.received, &self.settings.zone, known);
        let picture = Picture {
            settings: &self.settings,
            event,
            assesses: event.decoder.is_some_and(|id| ruleset.decoders.assesses(id)),
            decoders: &ruleset.shown,
            rule: Some(Chosen {
                rule,
                description: expanded.as_deref().unwrap_or(&rule.info.description),
                fired: finding.fired,
            }),
            last_events: &verdict.last_events,
            previous_log: verdict.previous_log.as_deref(),
            moment: &moment,
        };
        let renderer = &mut self.renderer;
        let json = picture.json(Shape::Alert, renderer);
        let plain = if self.settings.with_plain { picture.plain(renderer) } else { Frame::default() };
        self.second = moment.known().or(known);
        budget::begin();
        let target = |field| event.field(field).map(<[u8]>::to_vec);
        let (srcip, dstuser) = (target(StaticField::SrcIp), target(StaticField::DstUser));
        let contested = if rule.info.no_ar || (srcip.is_none() && dstuser.is_none()) {
            Vec::new()
        } else {
            ruleset.decoders.contested_from(event, &course.origins, &mut self.scratch)
        };
        let texts = Arc::clone(self.copies.of(ruleset, finding.rule));
        Alert {
            at: event.event.received,
            rule: AlertRule { id: rule.info.id, level: rule.info.level, texts, expanded },
            agent: Arc::clone(&event.event.agent),
            json,
            plain,
            srcip,
            dstuser,
            logged: rule.info.log,
            mail: rule.info.mail,
            no_response: rule.info.no_ar,
            contested,
        }
    }
}

/// The description with the event's values, if any stand in it.
fn expanded(rule: &Rule, event: &Decoded<'_>) -> Option<Vec<u8>> {
    (!rule.constant.is_fixed()).then(|| alert::expand(&rule.info.description, event))
}
