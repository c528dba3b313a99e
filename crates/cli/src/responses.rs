//! `threatlockdown responses`: what is in force on this host, and changing it by hand. The running service is asked
//! through its socket; when it is dead the journal is worked on. On a manager the same for its agents ([`orders`]).

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use tld_model::{
    AgentId, Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings,
};
use tld_respond::control::{self, Request};
use tld_respond::journal::{self, Listed};
use tld_respond::{RevertSelector, State, Takes};
use tld_sys::clock::{Clock, SystemClock};

use crate::Home;
use crate::orders::{self, Whom};
use crate::paint::{Paint, plain};

const AFTER: &str = "\
Examples:
  threatlockdown responses list --json
  threatlockdown responses show 203.0.113.7
  sudo threatlockdown responses add firewall-drop 203.0.113.7 --for 3600
  sudo threatlockdown responses extend 203.0.113.7 --for 86400
  sudo threatlockdown responses revert 203.0.113.7
  sudo threatlockdown responses revert bob               an account, or what else `list` shows as target
  sudo threatlockdown responses revert --all
  sudo threatlockdown responses add isolate-host --for 3600
  threatlockdown responses list --agent 003              on a manager: orders to that agent
  sudo threatlockdown responses add firewall-drop 203.0.113.7 --for 600 --agent 003
  sudo threatlockdown responses revert --all --agents    undo everything on all agents
  sudo threatlockdown responses pause      begin nothing new and put nothing back, until `resume`

While the service runs it is asked; otherwise the journal is worked on directly.";

/// List, show, add, extend and revert responses; pause and resume them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

/// Options that every action has.
#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    home: Home,
    /// One JSON object a line instead of text
    #[arg(long)]
    json: bool,
}

/// Which effects are meant.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Address, account or file, as `list` shows it
    target: Option<String>,
    /// One order by its id, as `list --json` shows it
    #[arg(long, value_name = "ID")]
    order: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl Which {
    fn selector(&self) -> RevertSelector {
        match (&self.target, &self.order) {
            (Some(target), _) => target.parse().map_or_else(
                |_not_an_address| RevertSelector::Target(target.clone()),
                RevertSelector::Address,
            ),
            (None, Some(order)) => RevertSelector::Order(OrderId(order.clone())),
            (None, None) => RevertSelector::All,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what is in force, with the time left
    #[command(after_help = "Example:\n  threatlockdown responses list --json")]
    List {
        #[command(flatten)]
        common: Common,
        /// On a manager: only orders to this agent
        #[arg(long, value_name = "ID")]
        agent: Option<AgentId>,
        /// On a manager: the newest so many finished orders too
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        finished: u32,
    },
    /// Show all that is known of an address, an account or an order, finished ones too
    #[command(after_help = "Example:\n  threatlockdown responses show 203.0.113.7")]
    Show {
        #[command(flatten)]
        common: Common,
        /// Address, account or order id
        target: String,
    },
    /// Compare wish and world in numbers: desired, enforced, put back, failed
    #[command(after_help = "Example:\n  sudo threatlockdown responses status --json")]
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Carry out a response now, as if a rule had asked for it; the guards hold
    #[command(after_help = "Example:\n  sudo threatlockdown responses add host-deny 2001:db8::7 --for 600")]
    Add {
        #[command(flatten)]
        common: Common,
        /// Name of the executable in active-response/bin
        response: String,
        /// Address, account, absolute path or process number, as the response needs it; some need none
        target: Option<String>,
        /// Seconds until it is undone; 0 = never
        #[arg(long = "for", value_name = "SECONDS", default_value_t = 600)]
        seconds: u64,
        /// Extra argument, may be repeated
        #[arg(long = "arg", value_name = "TEXT")]
        extra: Vec<String>,
        /// End live connections of the address too
        #[arg(long)]
        cut_connections: bool,
        /// On a manager: not here, but on this agent
        #[arg(long, value_name = "ID")]
        agent: Option<AgentId>,
        /// On a manager: not here, but on every agent
        #[arg(long, conflicts_with = "agent")]
        agents: bool,
        /// With --agents: only those of this group
        #[arg(long, value_name = "NAME", requires = "agents")]
        group: Option<String>,
    },
    /// Let effects last longer; an end is only ever moved out
    #[command(after_help = "Example:\n  sudo threatlockdown responses extend 203.0.113.7 --for 86400")]
    Extend {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// Seconds from now
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: u64,
    },
    /// Undo now
    #[command(after_help = "Examples:\n  sudo threatlockdown responses revert 203.0.113.7\n  \
                            sudo threatlockdown responses revert --all")]
    Revert {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        which: Which,
        /// On a manager: only on this agent
        #[arg(long, value_name = "ID")]
        agent: Option<AgentId>,
        /// On a manager: with --all, on this host and all agents
        #[arg(long, conflicts_with = "agent")]
        agents: bool,
    },
    /// Begin no new responses and put nothing back, until resumed; what is in force still ends at its time
    #[command(after_help = "Example:\n  sudo threatlockdown responses pause")]
    Pause {
        #[command(flatten)]
        common: Common,
    },
    /// Go on after a pause
    #[command(after_help = "Example:\n  sudo threatlockdown responses resume")]
    Resume {
        #[command(flatten)]
        common: Common,
    },
}

impl Action {
    fn common(&self) -> &Common {
        match self {
            Self::List { common, .. }
            | Self::Show { common, .. }
            | Self::Status { common }
            | Self::Add { common, .. }
            | Self::Extend { common, .. }
            | Self::Revert { common, .. }
            | Self::Pause { common }
            | Self::Resume { common } => common,
        }
    }
}

/// The target if it is one that the response can take; a hyphen, as it stands in lists, is none.
fn fit<'t>(response: &str, target: Option<&'t str>) -> Result<Option<&'t str>> {
    let target = target.filter(|text| *text != "-");
    match (tld_respond::takes(response), target) {
        (Some(needed), None) => bail!("`{response}` needs a target: {}", needed.words()),
        (Some(needed), Some(target)) if !needed.fits(target) => {
            bail!("`{response}` needs {}, and `{}` is none", needed.words(), plain(target))
        }
        _ => Ok(target),
    }
}

/// Does what was asked.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let home = &options.action.common().home.home;
    if home.try_exists().is_ok_and(|there| !there) {
        bail!("there is no `{}`; name the directory of the installation with --home", home.display());
    }
    match &options.action {
        Action::List { common, agent, finished } => list(common, *agent, *finished),
        Action::Show { common, target } => show(common, target),
        Action::Status { common } => status(common),
        Action::Add { common, response, target, seconds, extra, cut_connections, agent, agents, group } => {
            let target = fit(response, target.as_deref())?;
            let order = order(response, target, *seconds, extra, *cut_connections)?;
            let whom = match (agent, agents) {
                (Some(agent), _) => Whom::Agent(*agent),
                (None, true) => Whom::All(group.clone()),
                (None, false) => return carry_out(common, Request::Add(Box::new(order))),
            };
            let well = orders::add(&common.home.home, order, &whom, common.json)?;
            Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Extend { common, which, seconds } => {
            carry_out(common, Request::Extend(which.selector(), *seconds))
        }
        Action::Revert { common, which, agent, agents } => revert(common, which, *agent, *agents),
        Action::Pause { common } => carry_out(common, Request::Pause),
        Action::Resume { common } => carry_out(common, Request::Resume),
    }
}

/// On this host, and where a manager serves it on its agents. `--all` means the agents only if that is said.
fn revert(common: &Common, which: &Which, agent: Option<AgentId>, agents: bool) -> Result<ExitCode> {
    let far = if which.all && !agents && agent.is_none() {
        None
    } else {
        orders::revert(&common.home.home, which.selector(), agent, common.json)?
    };
    if (agent.is_some() || agents) && far.is_none() {
        bail!("no manager serves this home");
    }
    if agent.is_some() {
        return Ok(if far == Some(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let near = carry_out(common, Request::Revert(which.selector()))?;
    Ok(if far == Some(false) { ExitCode::FAILURE } else { near })
}

fn read(home: &Home, closed: u32) -> Result<Vec<Listed>> {
    journal::list(&home.home, closed)
        .with_context(|| format!("cannot read the journal below `{}`", home.home.display()))
}

fn show(common: &Common, target: &str) -> Result<ExitCode> {
    let canonical =
        target.parse::<IpAddr>().map_or_else(|_| target.into(), |one| one.to_canonical().to_string());
    let home = &common.home.home;
    let all = journal::about(home, &canonical, MOST_SHOWN)
        .with_context(|| format!("cannot read the journal below `{}`", home.display()))?;
    let mut found = false;
    for one in &all {
        found = true;
        if common.json {
            println!("{}", as_json(one));
            continue;
        }
        println!(
            "order {}: {} on {}, {}",
            one.order.id,
            plain(&one.order.response),
            plain(&one.shown_target()),
            one.state.name()
        );
        let rule = one.order.rule.map_or_else(|| "none, by hand".to_owned(), |rule| rule.to_string());
        println!("  rule {rule}, alert {}, executable {}", one.order.alert_id, one.program);
        if let Some(until) = one.until.filter(|_| one.state != State::Closed) {
            println!("  {} s left", until.since(now()).as_secs());
        }
        if let Some(outcome) = &one.outcome {
            println!("  {}: {}", outcome.kind, plain(&outcome.detail));
            let proof = outcome.evidence.read_back.as_ref().or(outcome.evidence.stderr.as_ref());
            if let Some(proof) = proof {
                println!("  evidence: {}", plain(proof.trim_end()));
            }
        }
    }
    if found && !common.json {
        let open: Vec<&Listed> = all.iter().filter(|one| one.state != State::Closed).collect();
        match open.first() {
            None => println!("{target}: nothing is in force now"),
            Some(first) => {
                let which =
                    if first.order.id.0 == target { format!("--order {target}") } else { plain(target) };
                let count = open.len();
                println!(
                    "{target}: {count} in force; undo now: sudo threatlockdown responses revert {which}"
                );
            }
        }
    }
    found |= orders::show(&common.home.home, target, &canonical, common.json)?;
    if !found {
        eprintln!("nothing is known of {target}: nothing is in force, and nothing was in the last week");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn now() -> Timestamp {
    Timestamp::from_nanos(SystemClock.wall_nanos())
}

/// An order as a rule would give it, with an alert that names the target where responses look for it.
fn order(response: &str, target: Option<&str>, seconds: u64, extra: &[String], cut: bool) -> Result<Order> {
    let named = target.map(|target| (Takes::of(target), target));
    let data = match named {
        Some((Takes::Address, target)) => serde_json::json!({ "srcip": target }),
        Some((Takes::File, target)) => serde_json::json!({ "file": target }),
        // A name of digits is an account where the response says so.
        Some((Takes::Process, target)) if tld_respond::takes(response) != Some(Takes::Account) => {
            serde_json::json!({ "pid": target })
        }
        Some((_, target)) => serde_json::json!({ "dstuser": target }),
        None => serde_json::json!({}),
    };
    let created = now();
    // Agents' logs name orders by their alert, so that each by hand has its own.
    let alert_id = format!("{}.{}", created.secs(), created.nanos().rem_euclid(1_000_000_000));
    let alert = serde_json::json!({
        "rule": {"level": 0, "id": "0", "description": "Response given by hand"}, "id": alert_id, "location": "responses add",
        "data": data,
    });
    Ok(Order {
        id: OrderId(format!("hand-{}", created.nanos())),
        response: format!("{response}{seconds}"),
        executable: response.into(),
        timeout_secs: seconds,
        extra_args: extra.to_vec(),
        node: "threatlockdown".into(),
        alert: RawJson::from(serde_json::value::to_raw_value(&alert)?),
        alert_id,
        rule: None,
        target: match (target.and_then(|target| target.parse::<IpAddr>().ok()), data.get("dstuser")) {
            (Some(address), _) => Target::Address(address.to_canonical()),
            (None, Some(_)) => Target::User(target.unwrap_or_default().into()),
            _ => Target::None,
        },
        created,
        timings: Timings::default(),
        options: OrderOptions { cut_connections: cut, ..OrderOptions::default() },
    })
}

fn carry_out(common: &Common, request: Request) -> Result<ExitCode> {
    let home = &common.home.home;
    let log = Arc::new(|line: &str| eprintln!("{line}"));
    let undoing = matches!(request, Request::Revert(_));
    let longer = matches!(request, Request::Extend(..));
    let word = match request {
        Request::Pause => Some("responses are paused"),
        Request::Resume => Some("responses go on"),
        _ => None,
    };
    let mut setup = tld_respond::Setup {
        self_hash: tld_respond::self_hash().ok(),
        limits: tld_respond::Limits::of(&tld_config::internal_options(home).0),
        ..tld_respond::Setup::new(home.clone(), Arc::new(SystemClock), log)
    };
    if let Request::Add(_) = request {
        // Without the service its own guards are built here, from the same file.
        let prepared = tld_server::load::load(home, None).ok().and_then(|reading| reading.prepared);
        if let Some(prepared) = prepared {
            setup.protected.clone_from(&prepared.settings.responder.protected);
            setup.managers.clone_from(&prepared.settings.responder.managers);
            setup.repeated_offenders.clone_from(&prepared.settings.responder.repeated_offenders);
        }
    }
    let patience = setup.limits.total;
    let carried = control::carry_out(setup, request, patience)
        .with_context(|| format!("cannot do this below `{}`", home.display()))?;
    let outcomes = carried.outcomes;
    if carried.counted > 0 {
        if common.json {
            println!("{}", serde_json::json!({"concerned": carried.counted, "open": carried.open}));
        } else {
            println!("{} responses are concerned, {} are in force now", carried.counted, carried.open);
        }
        return Ok(if undoing && carried.open > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    if let Some(word) = word {
        println!(
            "{}",
            if common.json { serde_json::json!({"done": word}).to_string() } else { word.to_owned() }
        );
        return Ok(ExitCode::SUCCESS);
    }
    if outcomes.is_empty() && !common.json {
        println!("nothing of that is in force");
    }
    let mut failed = false;
    for outcome in &outcomes {
        failed |= !match outcome.kind {
            OutcomeKind::Reverted | OutcomeKind::Cancelled => undoing,
            OutcomeKind::Applied | OutcomeKind::AlreadyActive => !undoing,
            _ => false,
        };
        // A file is only named by the journal.
        let found = (longer || outcome.target == Target::None)
            .then(|| journal::find(home, &outcome.order).ok().flatten())
            .flatten();
        // What it was told when it began is not what it has now.
        let moved = found.as_ref().and_then(|found| found.until).filter(|_| longer);
        if common.json {
            let outcome = Outcome { until: moved.or(outcome.until), ..outcome.clone() };
            println!("{}", serde_json::to_string(&outcome)?);
        } else {
            let target = found.as_ref().map_or_else(|| outcome.target.to_string(), Listed::shown_target);
            let what = match moved {
                Some(until) => {
                    let left = until.since(now()).as_secs();
                    format!("extended {} {target}: {left} s left", outcome.response)
                }
                None => format!("{} {} {target}: {}", outcome.kind, outcome.response, outcome.detail),
            };
            println!("{}", plain(&what));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn list(common: &Common, agent: Option<AgentId>, finished: u32) -> Result<ExitCode> {
    let (home, json) = (&common.home, common.json);
    if agent.is_some() {
        if !orders::list(&home.home, agent, finished, json)? && !json {
            println!("no order to that agent is open");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let listed = read(home, 0)?;
    if json {
        for one in &listed {
            println!("{}", as_json(one));
        }
        orders::list(&home.home, None, finished, true)?;
        return Ok(ExitCode::SUCCESS);
    }
    if control::is_paused(&home.home) {
        println!("responses are paused (go on with: threatlockdown responses resume)");
    }
    let paint = Paint::stdout();
    if listed.is_empty() {
        println!("no response is in force below `{}`", home.home.display());
        orders::list(&home.home, None, finished, false)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{}",
        paint
            .strong(&format!("{:<40} {:<18} {:>9}  {:<6} {}", "TARGET", "RESPONSE", "LEFT", "RULE", "STATE"))
    );
    let now = now();
    for one in &listed {
        println!("{}", plain(&row(one, now)));
    }
    if let Ok(Some(status)) = control::status(&home.home) {
        println!("{}", in_numbers(&status));
    }
    orders::list(&home.home, None, finished, false)?;
    println!("why: threatlockdown responses show TARGET   undo now: threatlockdown responses revert TARGET");
    Ok(ExitCode::SUCCESS)
}

/// One line for a person; troubles are only named where there are any.
fn in_numbers(status: &control::Status) -> String {
    let mut text = format!(
        "{} desired, {} enforced, {} put back and {} failures since the start",
        status.desired, status.enforced, status.healed, status.failed
    );
    for (count, what) in [(status.stuck, "undos are tried again"), (status.waiting, "wait or run")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    if status.paused {
        text.push_str("\npaused by an operator: nothing is begun, looked after or put back until `threatlockdown responses resume`");
    }
    for why in [&status.journal, &status.firewall].into_iter().flatten() {
        text.push_str(&format!("\nALARM: {why}"));
    }
    text
}

/// What the running service says of itself.
fn status(common: &Common) -> Result<ExitCode> {
    let home = &common.home.home;
    let status = control::status(home).with_context(|| format!("cannot ask below `{}`", home.display()))?;
    match status {
        Some(status) if common.json => println!("{}", serde_json::to_string(&status)?),
        Some(status) => println!("{}", in_numbers(&status)),
        None => {
            eprintln!(
                "no service runs below `{}`; `threatlockdown responses list` reads its journal",
                home.display()
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(one: &Listed) -> serde_json::Value {
    serde_json::json!({
        "order": one.order.id, "response": one.order.response, "program": one.program, "target": one.order.target,
        "state": one.state.name(), "until": one.until.map(Timestamp::secs), "rule": one.order.rule,
        "alert": one.order.alert_id, "changed": one.changed.secs(), "outcome": one.outcome,
    })
}

fn row(one: &Listed, now: Timestamp) -> String {
    let left = match one.until {
        Some(until) => format!("{} s", until.since(now).as_secs()),
        // Not begun: its end is reckoned from when it is in place.
        None if one.state == State::Accepted => "-".to_owned(),
        None => "for ever".to_owned(),
    };
    let rule = one.order.rule.map_or_else(|| "-".to_owned(), |rule| rule.to_string());
    format!("{:<40} {:<18} {left:>9}  {rule:<6} {}", one.shown_target(), one.order.response, one.state.name())
}

/// Effects that are shown of one target.
const MOST_SHOWN: usize = 1_000;
