//! The part of `threatlockdown responses` that concerns a manager's agents: its ledger is read, its service is asked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tld_config::Response;
use tld_model::{AgentId, Order, OrderId, Origin, Outcome, OutcomeKind, Timestamp};
use tld_respond::RevertSelector;
use tld_server::dispatch::fleet::control::{self, ControlError, Reply, Request};
use tld_server::dispatch::ledger::{self, Audience, Draft, Filter, Listed, State};
use tld_sys::clock::{Clock as _, SystemClock};

use crate::paint::{Paint, plain};

/// Finished orders that are looked through for a target.
const SEARCHED: u32 = 100_000;
/// How long agents are waited for.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);
/// Response names that a hint lists.
const HINTED: usize = 20;

fn read(home: &Path, filter: &Filter) -> Result<Vec<Listed>> {
    ledger::list(home, filter).with_context(|| format!("cannot read the ledger below `{}`", home.display()))
}

/// Shows orders to agents that are not finished, and the newest finished ones; false if there are none.
pub(crate) fn list(home: &Path, agent: Option<AgentId>, finished: u32, json: bool) -> Result<bool> {
    let mut listed = read(home, &Filter { agent, order: None, closed: finished })?;
    if agent.is_none() {
        // What is in force on this host stands in its journal.
        listed.retain(|one| one.agent != AgentId::MANAGER || one.state == State::Closed);
    }
    if listed.is_empty() {
        return Ok(false);
    }
    if json {
        listed.iter().for_each(|one| println!("{}", as_json(one)));
        return Ok(true);
    }
    let head = format!(
        "{:<6} {:<40} {:<18} {:>9}  {:<6} {:<9} {}",
        "AGENT", "TARGET", "RESPONSE", "LEFT", "RULE", "STATE", "OUTCOME"
    );
    println!("{}", Paint::stdout().strong(&head));
    let now = now();
    for one in &listed {
        let rule = one.order.rule.map_or_else(|| "-".to_owned(), |rule| rule.to_string());
        let (agent, target, left) = (one.agent.to_string(), one.order.target.to_string(), left(one, now));
        let (response, state) = (&one.order.response, one.state.name());
        let outcome = last(one).map_or("-", |outcome| outcome.kind.name());
        let line =
            format!("{agent:<6} {target:<40} {response:<18} {left:>9}  {rule:<6} {state:<9} {outcome}");
        println!("{}", plain(&line));
    }
    Ok(true)
}

/// Shows all that the ledger knows of an order or target; false if that is nothing.
pub(crate) fn show(home: &Path, target: &str, canonical: &str, json: bool) -> Result<bool> {
    let mut listed = read(home, &Filter { closed: SEARCHED, ..Filter::default() })?;
    listed.retain(|one| one.order.id.0 == target || one.order.target.to_string() == canonical);
    for one in &listed {
        if json {
            println!("{}", as_json(one));
            continue;
        }
        let place = if one.agent == AgentId::MANAGER {
            "the manager".to_owned()
        } else {
            format!("agent {}", one.agent)
        };
        let order = &one.order;
        println!(
            "order {}: {} on {} by {place}, {}",
            order.id,
            plain(&order.response),
            plain(&order.target.to_string()),
            one.state.name()
        );
        let rule =
            order.rule.map_or_else(|| "none, by hand or by another tool".to_owned(), |rule| rule.to_string());
        println!("  rule {rule}, alert {}, executable {}", order.alert_id, order.executable);
        if one.withdrawn && one.state != State::Closed {
            println!("  withdrawn by an operator; the agent has not answered yet");
        }
        if one.state != State::Closed {
            println!("  {} left", left(one, now()));
        }
        for outcome in [&one.outcome, &one.ending].into_iter().flatten() {
            println!("  {}: {}", outcome.kind, plain(&outcome.detail));
            let proof = outcome.evidence.read_back.as_ref().or(outcome.evidence.stderr.as_ref());
            if let Some(proof) = proof {
                println!("  evidence: {}", plain(proof.trim_end()));
            }
        }
    }
    Ok(!listed.is_empty())
}

/// Whom an order by hand is for.
#[derive(Debug)]
pub(crate) enum Whom {
    /// One agent.
    Agent(AgentId),
    /// Every agent that is connected, of a group if one is named.
    All(Option<String>),
}

/// Sends an order given by hand to agents; true if every one that answered did it.
pub(crate) fn add(home: &Path, order: Order, whom: &Whom, json: bool) -> Result<bool> {
    let settings = tld_server::load::load(home, None)?.prepared.map(|prepared| prepared.settings);
    let responses = settings.as_ref().map_or(&[][..], |settings| &settings.responses);
    let order = as_configured(order, responses)?;
    let audience = match whom {
        Whom::Agent(agent) => Audience::One(agent.0),
        Whom::All(group) => Audience::All { groups: group.iter().cloned().collect(), labels: Vec::new() },
    };
    let origin = Origin { name: Some(String::new()), module: String::new() };
    let base = order.id.clone();
    let request = Request::Add(Box::new(Draft { order, audience, origin, verbatim: None }));
    let orders = match control::ask(home, &request)? {
        Reply::Taken { orders, .. } => orders,
        Reply::Refused(why) => bail!("the manager refused: {why}"),
    };
    if orders.is_empty() {
        println!("order {base}: no agent of those is connected; those that connect in time will get it");
        return Ok(true);
    }
    await_all(home, &orders, false, json)
}

/// Agents look responses up by the name in their ar.conf, which has the timeout at its end; people name the command.
fn as_configured(order: Order, responses: &[Response]) -> Result<Order> {
    if let Some(file) = order.executable.strip_prefix('!') {
        return Ok(Order {
            response: order.executable.clone(),
            executable: file.into(),
            timeout_secs: 0,
            ..order
        });
    }
    let fits = |response: &&Response| {
        response.name == order.executable
            || (response.command == order.executable && response.timeout_secs == order.timeout_secs)
    };
    let Some(found) = responses.iter().find(fits) else {
        let mut names: Vec<_> =
            responses.iter().map(|response| response.name.as_str()).take(HINTED).collect();
        names.dedup();
        bail!(
            "agents know no response `{}` of {} s; configured are: {}",
            order.executable,
            order.timeout_secs,
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        );
    };
    Ok(Order {
        response: found.name.clone(),
        executable: found.executable.clone(),
        timeout_secs: found.timeout_secs,
        extra_args: [found.extra_args.clone(), order.extra_args.clone()].concat(),
        ..order
    })
}

/// Undoes on agents; none where no manager serves the home, otherwise whether all went well.
pub(crate) fn revert(
    home: &Path,
    selector: RevertSelector,
    agent: Option<AgentId>,
    json: bool,
) -> Result<Option<bool>> {
    let request = Request::Revert { selector, agent: agent.map(|agent| agent.0) };
    let (orders, more, stuck) = match control::ask(home, &request) {
        Ok(Reply::Taken { orders, more, stuck }) => (orders, more, stuck),
        Ok(Reply::Refused(why)) => bail!("the manager refused: {why}"),
        Err(ControlError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for why in &stuck {
        eprintln!("{why}");
    }
    if more > 0 {
        eprintln!("{more} more orders are being withdrawn; see `threatlockdown responses list`");
    }
    let done = await_all(home, &orders, true, json)?;
    Ok(Some(done && stuck.is_empty()))
}

/// Waits for what becomes of orders, and shows it.
fn await_all(home: &Path, orders: &[OrderId], undoing: bool, json: bool) -> Result<bool> {
    let end = SystemClock.boot() + PATIENCE;
    let mut well = true;
    for order in orders {
        let outcome = loop {
            let filter = Filter { order: Some(order.clone()), closed: 1, ..Filter::default() };
            let found = read(home, &filter)?.into_iter().next();
            let settled = found.as_ref().and_then(|one| settled(one, undoing).cloned());
            match (settled, found) {
                (Some(outcome), Some(one)) => break Some((one.agent, outcome)),
                _ if SystemClock.boot() >= end => break None,
                _ => std::thread::sleep(PAUSE),
            }
        };
        let Some((agent, outcome)) = outcome else {
            println!("order {order}: no answer yet; see `threatlockdown responses show {order}`");
            continue;
        };
        well &= match outcome.kind {
            OutcomeKind::Reverted | OutcomeKind::Cancelled => undoing,
            OutcomeKind::Applied | OutcomeKind::AlreadyActive => !undoing,
            _ => false,
        };
        if json {
            println!("{}", serde_json::to_string(&outcome)?);
        } else {
            let Outcome { kind, response, target, detail, .. } = &outcome;
            println!("{}", plain(&format!("{kind} {response} {target} by agent {agent}: {detail}")));
        }
    }
    Ok(well)
}

/// What an operator waits for.
fn settled(one: &Listed, undoing: bool) -> Option<&Outcome> {
    match (undoing, one.state) {
        (true, State::Closed) => last(one),
        (true, _) => one.ending.as_ref(),
        (false, _) => one.outcome.as_ref(),
    }
}

fn last(one: &Listed) -> Option<&Outcome> {
    one.ending.as_ref().or(one.outcome.as_ref())
}

fn left(one: &Listed, now: Timestamp) -> String {
    match (one.state, one.ends) {
        (State::Closed, _) => "-".to_owned(),
        (_, Some(ends)) => format!("{} s", ends.since(now).as_secs()),
        (_, None) => format!("{} s", one.deadline.since(now).as_secs()),
    }
}

fn as_json(one: &Listed) -> serde_json::Value {
    serde_json::json!({
        "agent": one.agent.to_string(), "order": one.order.id, "response": one.order.response,
        "program": one.order.executable, "target": one.order.target, "state": one.state.name(),
        "deadline": one.deadline.secs(), "until": one.ends.map(Timestamp::secs), "rule": one.order.rule,
        "alert": one.order.alert_id, "withdrawn": one.withdrawn, "confirms": !one.plain, "changed": one.changed.secs(),
        "outcome": one.outcome, "ending": one.ending,
    })
}

fn now() -> Timestamp {
    Timestamp::from_nanos(SystemClock.wall_nanos())
}
