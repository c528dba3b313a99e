use std::collections::HashSet;

use serde_json::value::RawValue;
use tempfile::TempDir;
use tld_config::{Role, Settings};
use tld_model::{Evidence, ExecMessage, OrderOptions, Origin, Target, Timings, Zone};
use tld_respond::RevertSelector;
use tld_rules::Ruleset;
use tld_sys::clock::SystemClock;
use tld_xml::Source;

use super::*;
use crate::dispatch::ledger::{Audience, Filter, Listed, State, list};
use crate::registry::{self, NewAgent};

const LONG: Duration = Duration::from_secs(30);

/// A channel that keeps what it is given.
#[derive(Default)]
pub(crate) struct Line {
    there: Mutex<BTreeMap<AgentId, bool>>,
    full: Mutex<HashSet<AgentId>>,
    pub(crate) sent: Mutex<Vec<(AgentId, ExecMessage, Ticket)>>,
    pub(crate) relayed: Mutex<Vec<(AgentId, Vec<u8>)>>,
    confirmed: Mutex<Vec<(AgentId, OrderId, OutcomeKind)>>,
    cancelled: Mutex<Vec<(AgentId, OrderId)>>,
}

impl Line {
    fn queued(&self, agent: AgentId) -> Result<Queued, ReachError> {
        if lock(&self.full).contains(&agent) {
            return Err(ReachError::Full);
        }
        let confirms = *lock(&self.there).get(&agent).ok_or(ReachError::Away)?;
        Ok(if confirms { Queued::Confirming } else { Queued::Plain })
    }
}

impl Reach for Line {
    fn order(&self, agent: AgentId, message: &ExecMessage, ticket: &Ticket) -> Result<Queued, ReachError> {
        let queued = self.queued(agent)?;
        lock(&self.sent).push((agent, message.clone(), ticket.clone()));
        Ok(queued)
    }

    fn relay(&self, agent: AgentId, payload: &[u8]) -> Result<Queued, ReachError> {
        let queued = self.queued(agent)?;
        lock(&self.relayed).push((agent, payload.to_vec()));
        Ok(queued)
    }

    fn confirm(&self, agent: AgentId, outcome: &Outcome) -> Result<(), ReachError> {
        lock(&self.confirmed).push((agent, outcome.order.clone(), outcome.kind));
        Ok(())
    }

    fn cancel(&self, agent: AgentId, order: &OrderId) -> Result<(), ReachError> {
        lock(&self.cancelled).push((agent, order.clone()));
        Ok(())
    }
}

#[derive(Clone, Default)]
pub(crate) struct Responder(pub(crate) Arc<Mutex<Vec<Order>>>);

impl Carrier for Responder {
    fn deliver(&self, order: &Order) -> Result<(), DeliverError> {
        lock(&self.0).push(order.clone());
        Ok(())
    }
}

pub(crate) struct Bed {
    pub(crate) home: TempDir,
    pub(crate) registry: Arc<Registry>,
    pub(crate) line: Arc<Line>,
    responder: Responder,
}

const CONF: &str = "<ossec_config><global><white_list>198.51.100.0/24</white_list></global>\
    <command><name>firewall-drop</name><executable>firewall-drop</executable><timeout_allowed>yes</timeout_allowed></command>\
    <active-response><command>firewall-drop</command><location>local</location><level>5</level><timeout>600</timeout></active-response>\
    <active-response><command>firewall-drop</command><location>local</location><level>5</level><timeout>2</timeout></active-response>\
    </ossec_config>";

fn settings() -> Settings {
    tld_config::parse(&Source::new("ossec.conf", CONF.as_bytes()), Role::Manager).settings
}

impl Bed {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["etc/shared/default", "queue/rids", "logs"] {
            std::fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        let setup = registry::Setup {
            home: home.path().into(),
            clock: Arc::new(SystemClock),
            zone: Zone::utc(),
            warn: Arc::new(|line| panic!("{line}")),
        };
        let registry = Arc::new(Registry::open(setup).unwrap());
        Self { home, registry, line: Arc::default(), responder: Responder::default() }
    }

    pub(crate) fn agent(&self, name: &str) -> Arc<Agent> {
        let new = NewAgent::new(name, "any".parse().unwrap());
        self.registry.edit(move |edit| edit.add(new)).unwrap().unwrap()
    }

    pub(crate) fn start(&self) -> Arc<Fleet> {
        let source = |text: &str| Source::new("x.xml", text.as_bytes());
        let rules = "<group name=\"a,\"><rule id=\"1\" level=\"0\"><category>syslog</category><description>x</description></rule></group>";
        let loaded = Ruleset::load(
            &[source("<decoder name=\"d\"><prematch>x</prematch></decoder>")],
            &[source(rules)],
            &[],
            &tld_rules::Options::default(),
        );
        let policy = Arc::new(Policy::new(&settings(), &loaded.ruleset.unwrap()));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = self.home.path().join("logs/ossec.log");
        let fleet = Fleet::start(Setup {
            home: self.home.path().into(),
            registry: Arc::clone(&self.registry),
            own: Own::new(Box::new(self.responder.clone())),
            policy,
            clock: Arc::clone(&clock),
            log: Log::new(log, clock, Zone::utc(), false),
        })
        .unwrap();
        fleet.connect(Arc::<Line>::clone(&self.line));
        fleet
    }

    pub(crate) fn come(&self, fleet: &Fleet, agent: &Arc<Agent>, confirms: bool) {
        lock(&self.line.there).insert(agent.id, confirms);
        fleet.ready(agent, confirms);
    }

    fn leave(&self, fleet: &Fleet, agent: &Arc<Agent>) {
        lock(&self.line.there).remove(&agent.id);
        fleet.gone(agent.id);
    }

    pub(crate) fn listed(&self) -> Vec<Listed> {
        list(self.home.path(), &Filter { closed: 100, ..Filter::default() }).unwrap()
    }

    pub(crate) fn sent(&self) -> Vec<(AgentId, OrderId)> {
        lock(&self.line.sent).iter().map(|(agent, _, ticket)| (*agent, ticket.order.clone())).collect()
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = SystemClock.boot() + LONG;
        while !holds() {
            assert!(SystemClock.boot() < end, "not in time: {what}; {:#?}", self.listed());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub(crate) fn closed(&self, order: &str, kind: OutcomeKind) -> Listed {
        let find = || {
            let listed = self.listed();
            listed.into_iter().find(|one| {
                one.order.id.0 == order
                    && [&one.outcome, &one.ending].into_iter().flatten().any(|outcome| outcome.kind == kind)
            })
        };
        self.until(&format!("{order} is {kind}"), || find().is_some());
        find().unwrap()
    }
}

fn now() -> Timestamp {
    Timestamp::from_nanos(SystemClock.wall_nanos())
}

fn draft(id: &str, audience: Audience, timeout_secs: u64) -> Draft {
    let alert = format!(r#"{{"id":"17.{id}","data":{{"srcip":"203.0.113.7"}}}}"#);
    Draft {
        order: Order {
            id: OrderId(id.into()),
            response: format!("firewall-drop{timeout_secs}"),
            executable: "firewall-drop".into(),
            timeout_secs,
            extra_args: Vec::new(),
            node: String::new(),
            alert: RawValue::from_string(alert).unwrap(),
            alert_id: format!("17.{id}"),
            rule: None,
            target: Target::Address([203, 0, 113, 7].into()),
            created: now(),
            timings: Timings::default(),
            options: OrderOptions::default(),
        },
        audience,
        origin: Origin { name: Some("undefined".into()), module: "wazuh-analysisd".into() },
        verbatim: None,
    }
}

fn all() -> Audience {
    Audience::All { groups: Vec::new(), labels: Vec::new() }
}

fn reported(order: &OrderId, kind: OutcomeKind, until: Option<Timestamp>) -> Outcome {
    Outcome {
        order: order.clone(),
        kind,
        response: "claimed".into(),
        program: "active-response/bin/firewall-drop".into(),
        target: Target::Address([203, 0, 113, 7].into()),
        alert_id: String::new(),
        rule: None,
        detail: "done".into(),
        evidence: Evidence { read_back: Some("in the set".into()), ..Evidence::default() },
        at: now(),
        until,
        timings: Timings::default(),
    }
}

fn event(agent: &Arc<Agent>, text: &str) -> Event {
    Event {
        queue: b'1',
        location: (*b"/var/ossec/logs/active-responses.log").into(),
        agent: agent.origin(),
        text: text.into(),
        received: now(),
    }
}

/// The lines of an executable of the contract.
fn lines(verb: &str, alert: &str, words: &[&str]) -> Vec<String> {
    let told = |verb: &str| {
        format!(
            r#"{{"version":1,"origin":{{"name":"","module":"wazuh-execd"}},"command":"{verb}","parameters":{{"extra_args":[],"alert":{{"id":"{alert}","data":{{"srcip":"203.0.113.7"}}}},"program":"active-response/bin/firewall-drop"}}}}"#
        )
    };
    let mut said = vec!["Starting".to_owned(), told(if verb == "delete" { "delete" } else { "add" })];
    if verb != "add" && verb != "delete" {
        said.push(told(verb));
    }
    said.extend(words.iter().map(|word| (*word).to_owned()));
    said.into_iter()
        .map(|text| format!("2026/03/02 10:15:31 active-response/bin/firewall-drop: {text}"))
        .collect()
}

#[test]
fn an_order_to_an_agent_of_ours_is_followed_until_its_effect_has_ended() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web"));
    bed.come(&fleet, &agent, true);
    fleet.submit(draft("o", Audience::One(1), 600), false);
    bed.until("the order is sent", || !bed.sent().is_empty());
    let (_, message, ticket) = lock(&bed.line.sent)[0].clone();
    assert_eq!(message.command, "firewall-drop600");
    let order = ticket.order.clone();
    assert!(ticket.deadline_ns.is_some() && ticket.ends_ns.is_none());
    fleet.received(agent.id, &order);
    fleet.outcome(
        agent.id,
        reported(&order, OutcomeKind::Applied, Some(now().plus(Duration::from_secs(600)))),
    );
    let applied = bed.closed("o", OutcomeKind::Applied);
    assert_eq!(applied.state, State::Active);
    assert_eq!(applied.outcome.unwrap().response, "firewall-drop600", "an agent does not rename a response");
    fleet.outcome(agent.id, reported(&order, OutcomeKind::Reverted, None));
    let reverted = bed.closed("o", OutcomeKind::Reverted);
    assert_eq!(reverted.state, State::Closed);
    assert_eq!(reverted.outcome.map(|outcome| outcome.kind), Some(OutcomeKind::Applied));
    bed.until("both reports are confirmed", || lock(&bed.line.confirmed).len() == 2);
    fleet.stop();
}

#[test]
fn an_agent_that_is_away_gets_its_order_when_it_comes_back() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web"));
    fleet.submit(draft("o", Audience::One(1), 600), false);
    bed.until("the order is stored", || bed.listed().len() == 1);
    assert_eq!(bed.listed()[0].state, State::Stored);
    bed.come(&fleet, &agent, true);
    bed.until("the order is sent", || bed.sent() == [(agent.id, OrderId("o".into()))]);
    fleet.stop();
}

#[test]
fn an_order_waits_no_longer_than_its_effect_would_have_lasted() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web"));
    fleet.submit(draft("o", Audience::One(1), 1), false);
    bed.closed("o", OutcomeKind::Expired);
    bed.come(&fleet, &agent, true);
    fleet.submit(draft("p", Audience::One(1), 600), false);
    bed.until("only the fresh one is sent", || bed.sent() == [(agent.id, OrderId("p".into()))]);
    fleet.stop();
}

#[test]
fn an_order_for_all_reaches_those_who_are_there_and_those_who_come_back_in_time_once() {
    let bed = Bed::new();
    let (fleet, web, db) = (bed.start(), bed.agent("web"), bed.agent("db"));
    bed.come(&fleet, &web, true);
    fleet.submit(draft("o", all(), 600), false);
    bed.until("the first has it", || bed.sent() == [(web.id, OrderId("o-001".into()))]);
    fleet.outcome(web.id, reported(&OrderId("o-001".into()), OutcomeKind::Refused, None));
    bed.closed("o-001", OutcomeKind::Refused);
    bed.come(&fleet, &db, true);
    bed.until("the second has it", || bed.sent().len() == 2);
    bed.leave(&fleet, &web);
    bed.come(&fleet, &web, true);
    fleet.submit(draft("p", Audience::One(1), 600), false);
    bed.until("the next order is sent", || bed.sent().iter().any(|(_, order)| order.0 == "p"));
    assert_eq!(bed.sent()[1], (db.id, OrderId("o-002".into())));
    assert_eq!(bed.sent().len(), 3, "what was refused is not sent again");
    fleet.stop();
}

#[test]
fn groups_and_labels_choose_among_the_agents() {
    let bed = Bed::new();
    let (fleet, web, db) = (bed.start(), bed.agent("web"), bed.agent("db"));
    web.update(|activity| activity.groups = vec!["default".into(), "web".into()]);
    db.update(|activity| activity.labels = vec![("site".into(), "lab".into())]);
    bed.come(&fleet, &web, true);
    bed.come(&fleet, &db, true);
    fleet.submit(draft("g", Audience::All { groups: vec!["web".into()], labels: Vec::new() }, 600), false);
    let labels = vec![("site".into(), "lab".into())];
    fleet.submit(draft("l", Audience::All { groups: Vec::new(), labels }, 600), false);
    bed.until("both are sent", || bed.sent().len() == 2);
    assert_eq!(bed.sent(), [(web.id, OrderId("g-001".into())), (db.id, OrderId("l-002".into()))]);
    fleet.stop();
}

#[test]
fn what_was_not_received_before_a_crash_is_sent_after_it_with_the_same_id() {
    let bed = Bed::new();
    let agent = bed.agent("web");
    let before = bed.start();
    bed.come(&before, &agent, true);
    before.submit(draft("o", Audience::One(1), 600), false);
    before.submit(draft("r", Audience::One(1), 600), false);
    bed.until("both are sent", || bed.sent().len() == 2);
    before.received(agent.id, &OrderId("r".into()));
    bed.until("one is received", || bed.listed().iter().any(|one| one.state == State::Received));
    before.stop();
    lock(&bed.line.sent).clear();
    let after = bed.start();
    bed.come(&after, &agent, true);
    bed.until("the other is sent again", || bed.sent() == [(agent.id, OrderId("o".into()))]);
    after.outcome(agent.id, reported(&OrderId("r".into()), OutcomeKind::Failed, None));
    bed.closed("r", OutcomeKind::Failed);
    after.stop();
}

#[test]
fn the_lines_of_a_plain_agents_log_are_its_outcome() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web"));
    bed.come(&fleet, &agent, false);
    for id in ["a", "b", "c"] {
        fleet.submit(draft(id, Audience::One(1), 600), false);
    }
    bed.until("all are sent", || bed.listed().iter().filter(|one| one.state == State::Sent).count() == 3);
    for line in lines("continue", "17.a", &["Ended"]) {
        fleet.watch(&event(&agent, &line));
    }
    assert_eq!(bed.closed("a", OutcomeKind::Applied).state, State::Active);
    for line in lines("abort", "17.b", &["Aborted"]) {
        fleet.watch(&event(&agent, &line));
    }
    bed.closed("b", OutcomeKind::AlreadyActive);
    let error = "Cannot read 'srcip' from data or invalid IP format";
    for line in lines("add", "17.c", &[error, "Ended"]) {
        fleet.watch(&event(&agent, &line));
    }
    let failed = bed.closed("c", OutcomeKind::Failed);
    assert!(failed.outcome.unwrap().detail.contains(error));
    for line in lines("delete", "17.a", &["Ended"]) {
        fleet.watch(&event(&agent, &line));
    }
    assert_eq!(bed.closed("a", OutcomeKind::Reverted).state, State::Closed);
    fleet.stop();
}

#[test]
fn no_agent_speaks_about_the_orders_of_another() {
    let bed = Bed::new();
    let (fleet, web, db) = (bed.start(), bed.agent("web"), bed.agent("db"));
    bed.come(&fleet, &web, false);
    bed.come(&fleet, &db, true);
    fleet.submit(draft("o", Audience::One(1), 600), false);
    fleet.submit(draft("p", Audience::One(2), 600), false);
    bed.until("both are sent", || bed.sent().len() == 2);
    fleet.outcome(db.id, reported(&OrderId("o".into()), OutcomeKind::Refused, None));
    for line in lines("continue", "17.o", &["Ended"]) {
        fleet.watch(&event(&db, &line));
    }
    fleet.outcome(db.id, reported(&OrderId("p".into()), OutcomeKind::Refused, None));
    bed.closed("p", OutcomeKind::Refused);
    assert!(bed.listed().iter().any(|one| one.order.id.0 == "o" && one.outcome.is_none()));
    fleet.stop();
}

#[test]
fn an_agent_that_reads_nothing_delays_no_other() {
    let bed = Bed::new();
    let (fleet, web, db) = (bed.start(), bed.agent("web"), bed.agent("db"));
    bed.come(&fleet, &web, true);
    bed.come(&fleet, &db, true);
    lock(&bed.line.full).insert(web.id);
    fleet.submit(draft("o", all(), 600), false);
    bed.until("the other has it", || bed.sent() == [(db.id, OrderId("o-002".into()))]);
    lock(&bed.line.full).clear();
    bed.until("the first has it once it reads", || bed.sent().len() == 2);
    fleet.stop();
}

#[test]
fn an_order_for_the_manager_is_told_of_by_its_own_responder() {
    let bed = Bed::new();
    let fleet = bed.start();
    fleet.submit(draft("o", Audience::One(0), 600), true);
    assert!(lock(&bed.responder.0).is_empty(), "it was carried already");
    fleet.own_outcome(reported(&OrderId("o".into()), OutcomeKind::Refused, None));
    bed.closed("o", OutcomeKind::Refused);
    fleet.submit(draft("p", Audience::One(0), 600), true);
    bed.until("it is stored", || bed.listed().len() == 2);
    fleet.stop();
    let after = bed.start();
    bed.until("it is carried again after a crash", || {
        lock(&bed.responder.0).iter().any(|one| one.id.0 == "p")
    });
    after.stop();
}

#[test]
fn an_operator_takes_orders_back() {
    let bed = Bed::new();
    let (fleet, ours, plain) = (bed.start(), bed.agent("ours"), bed.agent("plain"));
    bed.agent("away");
    bed.come(&fleet, &ours, true);
    bed.come(&fleet, &plain, false);
    for (id, agent) in [("o", 1), ("p", 2), ("q", 3)] {
        fleet.submit(draft(id, Audience::One(agent), 600), false);
    }
    bed.until("two are sent", || bed.listed().iter().filter(|one| one.state == State::Sent).count() == 2);
    let address = RevertSelector::Address("203.0.113.7".parse().unwrap());
    let reply = fleet.control(Request::Revert { selector: address, agent: None });
    let Reply::Taken { orders, more: 0, stuck } = reply else { panic!("{reply:?}") };
    assert_eq!((orders.len(), stuck.len()), (3, 0));
    bed.closed("q", OutcomeKind::Cancelled);
    bed.until("ours is asked", || *lock(&bed.line.cancelled) == [(ours.id, OrderId("o".into()))]);
    bed.until("the plain one gets a short response in its place", || {
        lock(&bed.line.sent)
            .iter()
            .any(|(agent, message, _)| *agent == plain.id && message.command == "firewall-drop2")
    });
    fleet.stop();
}

#[test]
fn the_allow_list_holds_for_operators_too() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web"));
    bed.come(&fleet, &agent, true);
    let mut forbidden = draft("o", Audience::One(1), 600);
    forbidden.order.target = Target::Address([198, 51, 100, 9].into());
    let reply = fleet.control(Request::Add(Box::new(forbidden)));
    assert!(matches!(&reply, Reply::Refused(why) if why.contains("198.51.100.0/24")), "{reply:?}");
    bed.closed("o", OutcomeKind::Refused);
    let reply = fleet.control(Request::Add(Box::new(draft("p", Audience::One(1), 600))));
    assert!(matches!(&reply, Reply::Taken { orders, .. } if orders.len() == 1), "{reply:?}");
    bed.until("it is sent", || bed.sent() == [(agent.id, OrderId("p".into()))]);
    fleet.stop();
}

#[test]
fn the_door_lets_an_operator_in() {
    let bed = Bed::new();
    let fleet = bed.start();
    bed.agent("web");
    let request = Request::Add(Box::new(draft("o", Audience::One(1), 600)));
    assert!(matches!(control::ask(bed.home.path(), &request), Err(control::ControlError::Absent { .. })));
    let door = control::Door::open(bed.home.path(), Arc::clone(&fleet)).unwrap();
    let reply = control::ask(bed.home.path(), &request).unwrap();
    assert_eq!(reply, Reply::Taken { orders: vec![OrderId("o".into())], more: 0, stuck: Vec::new() });
    drop(door);
    fleet.stop();
}

#[test]
fn a_burst_is_written_with_few_flushes_and_nothing_of_it_is_lost() {
    let bed = Bed::new();
    let (fleet, agent) = (bed.start(), bed.agent("web"));
    bed.come(&fleet, &agent, true);
    let start = SystemClock.boot();
    for n in 0..2_000 {
        fleet.submit(draft(&format!("o{n}"), Audience::One(1), 600), false);
    }
    bed.until("all are sent", || lock(&bed.line.sent).len() == 2_000);
    println!("2000 orders written and sent in {:?}", SystemClock.boot() - start);
    for n in 0..2_000 {
        fleet.outcome(agent.id, reported(&OrderId(format!("o{n}")), OutcomeKind::Refused, None));
    }
    let filter = Filter { closed: 10_000, ..Filter::default() };
    bed.until("all have an outcome", || {
        let listed = list(bed.home.path(), &filter).unwrap();
        listed.len() == 2_000 && listed.iter().all(|one| one.outcome.is_some())
    });
    fleet.stop();
}
