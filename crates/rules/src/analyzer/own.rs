//! Alerts of the product itself, which no line and no rule of a file causes (the statistics' rule 11).
//! Invariant: no response is bound to one.

use std::sync::Arc;

use tld_model::{Alert, AlertRule, Event, Frame, RuleId};

use super::Preparer;
use crate::Texts;
use crate::alert::{self, Chosen, Picture, Renderer, Shape};
use crate::predecode::{HostNames, predecode};
use crate::rule::condition::Moment;
use crate::rule::{Rule, RuleInfo};

/// A rule that stands in no file: what the product itself has to say.
#[derive(Debug, Clone)]
pub struct OwnRule {
    /// Number.
    pub id: RuleId,
    /// 1–16.
    pub level: u8,
    /// Group string.
    pub groups: &'static str,
    /// Description.
    pub description: &'static str,
    /// How often it fired.
    pub fired: u32,
}

impl Preparer {
    /// An alert of the product itself. No rule judges the event, and no response may be bound to it.
    pub fn own_alert(&self, own: &OwnRule, event: &Event) -> Alert {
        let hosts =
            HostNames { full: self.settings.manager_name.clone(), short: self.settings.short_host.clone() };
        let decoded = predecode(event, &hosts);
        let options = &self.ruleset.options;
        let mut rule = Rule::own(RuleInfo {
            id: own.id,
            level: own.level,
            groups: own.groups.into(),
            description: own.description.into(),
            log: own.level >= options.log_alert_level,
            mail: own.level >= options.email_alert_level,
            no_ar: true,
            noalert: false,
            frequency: None,
            timeframe: 0,
            ignore: None,
            parents: Vec::new(),
            file: "".into(),
            line: 0,
        });
        rule.constant = alert::Constant::new(&rule);
        let picture = Picture {
            settings: &self.settings,
            event: &decoded,
            assesses: false,
            decoders: &self.ruleset.shown,
            rule: Some(Chosen { rule: &rule, description: own.description.as_bytes(), fired: own.fired }),
            last_events: &Texts::default(),
            previous_log: None,
            moment: &Moment::new(event.received, &self.settings.zone),
        };
        let mut renderer = Renderer::new(&self.settings);
        Alert {
            at: event.received,
            rule: AlertRule::new(own.id, own.level, own.description.as_bytes(), own.groups),
            agent: Arc::clone(&event.agent),
            json: picture.json(Shape::Alert, &mut renderer),
            plain: if self.settings.with_plain { picture.plain(&mut renderer) } else { Frame::default() },
            srcip: None,
            dstuser: None,
            logged: rule.info.log,
            mail: rule.info.mail,
            no_response: true,
            contested: Vec::new(),
        }
    }
}
