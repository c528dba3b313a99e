//! What is kept from alert to alert: memory, and the pieces that many alerts have in common.
//! Invariant: a piece is used only where it would be made the same again.

use std::sync::Arc;

use tld_model::{Agent, Frame};

use super::fields::Names;
use super::json::Object;
use super::page::Page;
use super::place::Place;
use super::stamp::Begin;
use crate::analyzer::Settings;
use crate::rule::condition::Moment;

/// Renders alerts; one per thread.
#[derive(Debug)]
pub(crate) struct Renderer {
    pub(super) page: Page,
    pub(super) names: Names,
    /// The last second that was asked for, and an alert's begin in it.
    begin: Option<(i64, Begin)>,
    pub(super) places: Vec<Place>,
    /// Behind the id up to the log: the same in every alert.
    pub(super) cluster: Box<[u8]>,
    /// Memory of alerts that are done.
    spare: Vec<Vec<u8>>,
}

/// Agents with their locations that are remembered at once.
const PLACES: usize = 128;
/// Longer locations are not remembered beside each other.
const LONGEST_PLACE: usize = 512;
/// Spreads places over the table.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// So many alerts' memory is kept, if it is not longer than this.
const MOST_SPARE: usize = 256;
const LONGEST_SPARE: usize = 8 << 10;
impl Renderer {
    /// Of alerts with these settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut cluster = b"\"".to_vec();
        if let Some((name, node)) = &settings.cluster {
            cluster.extend_from_slice(b",\"cluster\":");
            let mut object = Object::open(&mut cluster);
            object.text("name", name.as_bytes());
            object.text("node", node.as_bytes());
            object.close();
        }
        Self {
            page: Page::default(),
            names: Names::default(),
            begin: None,
            places: Vec::new(),
            cluster: cluster.into(),
            spare: Vec::new(),
        }
    }

    /// Starts an alert: its brace and its time.
    pub(super) fn begin(&mut self, moment: &Moment<'_>) {
        self.page.clear();
        let at = moment.at();
        let second = at.secs();
        match &mut self.begin {
            Some((known, begin)) if *known == second => begin.set_millis(at.millis()),
            other => *other = Begin::new(moment.local()).map(|begin| (second, begin)),
        }
        match &self.begin {
            Some((_, begin)) => self.page.append(begin.text()),
            None => {
                let stamp = moment.local().alert_stamp();
                self.page.append(format!("{{\"timestamp\":\"{stamp}\"").as_bytes());
            }
        }
    }

    /// Where the pieces of an event's agent and location are.
    pub(super) fn place(&mut self, agent: &Arc<Agent>, location: &[u8], settings: &Settings) -> usize {
        let last = location.last_chunk::<8>().map_or(0, |last| u64::from_le_bytes(*last));
        let hash = (last ^ location.len() as u64 ^ u64::from(agent.id.0) << 32).wrapping_mul(SPREAD);
        // Senders choose locations: long ones share a slot, so that they never fill the table with themselves.
        let at = if location.len() > LONGEST_PLACE { 0 } else { (hash >> 32) as usize % PLACES };
        if self.places.is_empty() {
            self.places.resize_with(PLACES, Place::default);
        }
        let place = &mut self.places[at];
        if !place.is(agent, location) {
            place.set(agent, location, settings);
        }
        at
    }

    /// The page as a frame.
    pub(super) fn frame(&mut self, gap: usize) -> Frame {
        let mut text = self.spare.pop().unwrap_or_default();
        text.clear();
        text.extend_from_slice(self.page.written());
        Frame::new(text, gap)
    }

    /// Takes back the memory of an alert.
    pub(crate) fn recycle(&mut self, frame: Frame) {
        let memory = frame.into_memory();
        if self.spare.len() < MOST_SPARE && (1..=LONGEST_SPARE).contains(&memory.capacity()) {
            self.spare.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tld_model::{AgentId, Timestamp, Zone};

    use super::*;

    fn agent(number: usize) -> Arc<Agent> {
        let label = |value: &str| vec![("a.b".to_owned(), value.to_owned())];
        Arc::new(Agent {
            id: AgentId([0, 1, 1, 129, 1][number]),
            ip: [None, None, Some("192.0.2.1".to_owned()), None, Some("any".to_owned())][number].clone(),
            labels: [vec![], label("x"), vec![], vec![], label("y")][number].clone(),
            ..Agent::default()
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_of_places_and_seconds_changes_no_alert(
            events in prop::collection::vec((0_usize..5, 0_usize..7, 0_i64..4_000_000_000), 1..60),
        ) {
            let settings = Settings::default();
            let zone = Zone::fixed(3600);
            let long = ["x".repeat(600), "y".repeat(600)];
            let locations =
                ["/var/log/a", "(web) any->/var/log/a", "(web) 192.0.2.7->/var/log/a", "", &long[0], &long[1], "(s) u@h->x"];
            let mut kept = Renderer::new(&settings);
            for (number, location, nanos) in events {
                let (agent, location) = (agent(number), locations[location].as_bytes());
                let moment = Moment::new(Timestamp::from_nanos(nanos), &zone);
                let begin = |renderer: &mut Renderer| {
                    renderer.begin(&moment);
                    let place = renderer.place(&agent, location, &settings);
                    let Place { head, tail, .. } = &renderer.places[place];
                    [renderer.page.written(), head, tail].concat()
                };
                prop_assert_eq!(begin(&mut kept), begin(&mut Renderer::new(&settings)));
            }
        }
    }
}
