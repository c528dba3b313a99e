//! The search for earlier events, line by line as the specification has it (analysis-rules 4.2). Any faster way to
//! search must give the same answers.

use std::sync::Arc;

use tld_pattern::OsRegex;

use super::memory::Remembered;
use crate::rule::correlation::{Correlation, Shared};
use crate::{Category, Decoded, StaticField};

/// What a search found.
#[derive(Debug)]
pub(crate) enum Found {
    /// Too few: so many.
    Nothing(u32),
    /// An event that an alert of this or a higher level has used up hides the rest, behind so many.
    Hidden(u32),
    /// Enough; the events in the order of the walk.
    Enough(Vec<Arc<Remembered>>),
}

/// Entries of the last-events list.
const LAST_EVENTS: usize = 11;

/// One search.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    pub(crate) correlation: &'a Correlation,
    pub(crate) level: u8,
    pub(crate) now: i64,
    /// The walk goes over all events: types must be equal, and the log must match the expression, if there is one.
    pub(crate) everything: bool,
    pub(crate) regex: Option<&'a OsRegex>,
}

impl Search<'_> {
    /// Walks the events, newest first. Marks the newest counted one when enough are found; the caller marks the
    /// event that completes them.
    pub(crate) fn run<'m>(
        &self,
        event: &Decoded<'_>,
        category: Category,
        events: impl Iterator<Item = &'m Arc<Remembered>>,
    ) -> Found {
        let mut last_events = Vec::new();
        let mut counted = 0;
        let mut newest: Option<&Arc<Remembered>> = None;
        for old in events {
            if self.now - old.at() > i64::from(self.correlation.timeframe) {
                return Found::Nothing(counted);
            }
            if !self.alike(event, category, old) {
                continue;
            }
            if old.mark() >= self.level {
                return Found::Hidden(counted);
            }
            let count = counted < self.correlation.frequency;
            if last_events.len() < LAST_EVENTS && (count || !self.everything) {
                last_events.push(Arc::clone(old));
            }
            if count {
                newest.get_or_insert(old);
                counted += 1;
                continue;
            }
            if let Some(newest) = newest {
                newest.set_mark(self.level);
            }
            return Found::Enough(last_events);
        }
        Found::Nothing(counted)
    }

    fn alike(&self, event: &Decoded<'_>, category: Category, old: &Remembered) -> bool {
        if self.everything {
            if old.category != category {
                return false;
            }
            if self.regex.is_some_and(|regex| !regex.is_match(old.log())) {
                return false;
            }
        }
        let correlation = self.correlation;
        (correlation.any_agent || event.event.agent.id == old.agent)
            && correlation.same.iter().all(|shared| equal(*shared, event, old))
            && !correlation.different.iter().any(|shared| equal(*shared, event, old))
            && same_fields(&correlation.same_fields, event, old)
            && different_fields(&correlation.different_fields, event, old)
    }
}

/// Present in both and equal.
fn equal(shared: Shared, event: &Decoded<'_>, old: &Remembered) -> bool {
    match shared {
        Shared::Static(field) => event.field(field).is_some_and(|value| old.field(field) == Some(value)),
        Shared::Location => *event.location == *old.location(),
        Shared::Geo => false,
    }
}

fn same_fields(names: &[Box<str>], event: &Decoded<'_>, old: &Remembered) -> bool {
    names.iter().all(|name| equal_dynamic(name, event, old))
}

fn different_fields(names: &[Box<str>], event: &Decoded<'_>, old: &Remembered) -> bool {
    if names.is_empty() {
        return true;
    }
    let none_at_all = event.dynamic().is_empty() && !old.has_dynamic();
    !none_at_all && !names.iter().any(|name| equal_dynamic(name, event, old))
}

/// Static names are never found, also when a decoder made a dynamic field of such a name.
fn equal_dynamic(name: &str, event: &Decoded<'_>, old: &Remembered) -> bool {
    if name == "user" || StaticField::from_name(name).is_some() {
        return false;
    }
    event.dynamic_field(name).is_some_and(|value| old.dynamic_field(name) == Some(value))
}
