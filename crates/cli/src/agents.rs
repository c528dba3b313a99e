//! `threatlockdown agents`: the manager's agents. Works on the files, so it does not matter whether the manager runs; a running one
//! takes changes over within a second.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use tld_model::{AgentId, Timestamp, Zone};
use tld_server::registry::{Agent, NewAgent, Registry, Setup, State};
use tld_sys::clock::SystemClock;
use tld_sys::durable;
use tld_wire::key::{AgentKey, KeyFile};
use tld_wire::name::RegisteredIp;
use zeroize::Zeroizing;

use crate::paint::Paint;

const AFTER: &str = "\
Examples:
  threatlockdown agents list --state disconnected
  sudo threatlockdown agents add web-01 --group linux
  sudo threatlockdown agents key web-01              the text that `import` takes on the agent's host
  echo \"$KEY\" | sudo threatlockdown agents import -   on the agent's host
  sudo threatlockdown agents remove web-01";

/// Most bytes of an import key or an agent's key file.
const KEY_LIMIT: usize = 64 << 10;

/// List the manager's agents, add and remove them, hand out their keys
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
    /// Home directory of the installation
    #[arg(long, value_name = "DIR", default_value = "/var/ossec", global = true)]
    home: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all agents
    List {
        /// Only those in this state
        #[arg(long, value_parser = state)]
        state: Option<State>,
        /// One JSON object a line instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of one agent
    Show {
        /// Its id or name
        agent: String,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Register an agent by hand
    Add {
        /// Its name
        name: String,
        /// From where it may speak: an address, a network or `any`
        #[arg(long, default_value = "any")]
        ip: RegisteredIp,
        /// A group for it; several in order, the later ones win
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// Its id instead of the next free one
        #[arg(long)]
        id: Option<String>,
        /// One JSON object with id and import key instead of text
        #[arg(long)]
        json: bool,
    },
    /// Take agents out; their keys are no longer accepted
    Remove {
        /// Ids or names
        #[arg(required = true)]
        agents: Vec<String>,
        /// Forget their ids as well, so that they may be given again
        #[arg(long)]
        purge: bool,
    },
    /// Print the import key of an agent; whoever has it can speak for the agent
    Key {
        /// Its id or name
        agent: String,
    },
    /// Put an agent into groups, in place of those it is in
    Group {
        /// Its id or name
        agent: String,
        /// The groups in order, the later ones win
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// On an agent's host: take over a key that the manager printed
    Import {
        /// The import key, or `-` to read it from standard input, where other users cannot see it
        key: String,
    },
}

fn state(text: &str) -> Result<State, String> {
    let names = State::ALL.map(State::name).join(", ");
    State::named(text).ok_or_else(|| format!("one of {names}"))
}

/// Does what was asked for.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    let home = options.home;
    if let Action::Import { key } = &options.action {
        return import(&home, key);
    }
    let registry = open(&home)?;
    match options.action {
        Action::List { state, json } => list(&registry, state, json),
        Action::Show { agent, json } => show(&*find(&registry, &agent)?, json),
        Action::Add { name, ip, groups, id, json } => {
            add(&registry, NewAgent { groups, id, ..NewAgent::new(name, ip) }, json)?;
        }
        Action::Remove { agents, purge } => remove(&registry, &agents, purge)?,
        Action::Key { agent } => println!("{}", *import_key(&find(&registry, &agent)?.key)),
        Action::Group { agent, groups } => {
            let agent = find(&registry, &agent)?;
            known_groups(&registry, &groups)?;
            registry.set_groups(agent.id, groups.clone())?;
            println!("agent {} ({}) is in {}", agent.key.id, agent.key.name, groups.join(", "));
        }
        Action::Import { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn open(home: &Path) -> Result<Registry> {
    if !home.join("etc").is_dir() {
        bail!("`{}` is no installation: it has no `etc`", home.display());
    }
    let warn = |line: &str| eprintln!("{} {line}", Paint::stderr().warn("warning:"));
    let setup =
        Setup { home: home.into(), clock: Arc::new(SystemClock), zone: Zone::system(), warn: Arc::new(warn) };
    Registry::open(setup).with_context(|| format!("cannot open the agents of `{}`", home.display()))
}

fn find(registry: &Registry, wanted: &str) -> Result<Arc<Agent>> {
    let table = registry.table();
    let by_id = wanted.parse().ok().and_then(|id: AgentId| table.by_id(id));
    by_id.or_else(|| table.by_name(wanted)).cloned().ok_or_else(|| anyhow!("there is no agent `{wanted}`"))
}

fn known_groups(registry: &Registry, groups: &[String]) -> Result<()> {
    let Some(missing) = groups.iter().find(|group| !registry.has_group(group)) else { return Ok(()) };
    let known = registry.groups();
    if known.is_empty() {
        bail!("there is no group `{missing}`; groups are directories of `etc/shared`");
    }
    bail!("there is no group `{missing}`; there are {}", known.join(", "));
}

fn add(registry: &Registry, new: NewAgent, json: bool) -> Result<()> {
    known_groups(registry, &new.groups)?;
    let agent = registry.edit(move |edit| edit.add(new)).map_err(anyhow::Error::new)??;
    if json {
        let key = import_key(&agent.key);
        println!("{}", serde_json::json!({ "id": agent.key.id, "name": agent.key.name, "key": *key }));
    } else {
        println!("{} agent {} ({})", Paint::stdout().good("added:"), agent.key.id, agent.key.name);
        println!("its import key: threatlockdown agents key {}", agent.key.id);
    }
    Ok(())
}

fn remove(registry: &Registry, wanted: &[String], purge: bool) -> Result<()> {
    let agents = wanted.iter().map(|wanted| find(registry, wanted)).collect::<Result<Vec<_>>>()?;
    let ids: Vec<_> = agents.iter().map(|agent| agent.id).collect();
    let removed = registry
        .edit(move |edit| ids.into_iter().filter_map(|id| edit.remove(id, purge)).collect::<Vec<_>>())
        .map_err(anyhow::Error::new)?;
    for agent in removed {
        println!("{} agent {} ({})", Paint::stdout().good("removed:"), agent.key.id, agent.key.name);
    }
    Ok(())
}

fn list(registry: &Registry, state: Option<State>, json: bool) {
    let table = registry.table();
    let agents: Vec<_> =
        table.agents().filter(|agent| state.is_none_or(|state| agent.state() == state)).collect();
    if json {
        for agent in agents {
            println!("{}", as_json(agent));
        }
        return;
    }
    if agents.is_empty() {
        println!("no agents");
        return;
    }
    let wide = agents.iter().map(|agent| agent.key.name.len()).max().unwrap_or(0).clamp(8, 40);
    let head = format!(
        "{:<6} {:<wide$} {:<18} {:<15} {:<19} {:<9} {}",
        "ID", "NAME", "ADDRESS", "STATE", "LAST KEEP-ALIVE", "VERSION", "GROUPS"
    );
    println!("{}", Paint::stdout().strong(&head));
    for agent in agents {
        let activity = agent.activity();
        println!(
            "{:<6} {:<wide$} {:<18} {:<15} {:<19} {:<9} {}",
            agent.key.id,
            agent.key.name,
            agent.key.ip.to_string(),
            activity.state.name(),
            activity.last_keep_alive.map_or_else(|| "-".into(), stamp),
            activity.version.as_deref().map_or_else(|| "-".into(), printable),
            activity.groups.join(","),
        );
    }
}

fn show(agent: &Agent, json: bool) {
    if json {
        println!("{}", as_json(agent));
        return;
    }
    let activity = agent.activity();
    let text = |value: Option<String>| value.map_or_else(|| "-".to_owned(), |value| printable(&value));
    let groups = Some(activity.groups.join(", ")).filter(|groups| !groups.is_empty());
    let rows = [
        ("id", agent.key.id.clone()),
        ("name", agent.key.name.clone()),
        ("registered address", agent.key.ip.to_string()),
        ("registered", text(agent.registered.map(stamp))),
        ("state", format!("{} (code {})", activity.state, activity.status.code())),
        ("last keep-alive", text(activity.last_keep_alive.map(stamp))),
        ("disconnected", text(activity.disconnected_at.map(stamp))),
        ("address", text(activity.ip)),
        ("version", text(activity.version)),
        ("system", text(activity.os)),
        ("groups", text(groups)),
        ("shared files", text(activity.merged_sum)),
        ("configuration", text(activity.config_sum)),
        ("node", text(activity.node)),
    ];
    for (name, value) in rows {
        println!("{} {value}", Paint::stdout().dim(&format!("{name:<19}")));
    }
    for (name, value) in activity.labels {
        println!("{} {}", Paint::stdout().dim(&format!("label {:<13}", printable(&name))), printable(&value));
    }
}

fn as_json(agent: &Agent) -> serde_json::Value {
    let activity = agent.activity();
    let utc = |at: Timestamp| Zone::utc().local(at).alert_stamp().to_string();
    serde_json::json!({
        "id": agent.key.id, "name": agent.key.name, "registerIP": agent.key.ip.as_str(), "ip": activity.ip,
        "status": activity.state.name(), "status_code": activity.status.code(), "version": activity.version,
        "os": activity.os, "group": activity.groups, "dateAdd": agent.registered.map(utc),
        "lastKeepAlive": activity.last_keep_alive.map(utc),
        "disconnection_time": activity.disconnected_at.map(utc), "mergedSum": activity.merged_sum,
        "configSum": activity.config_sum, "node_name": activity.node,
        "labels": activity.labels.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn stamp(at: Timestamp) -> String {
    Zone::system().local(at).log_stamp().to_string()
}

/// What an agent says of itself reaches a terminal without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn import_key(key: &AgentKey) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(key.to_line().as_bytes()))
}

fn import(home: &Path, key: &str) -> Result<ExitCode> {
    let mut text = Zeroizing::new(String::new());
    if key == "-" {
        std::io::stdin()
            .lock()
            .take(KEY_LIMIT as u64)
            .read_to_string(&mut text)
            .context("cannot read the import key")?;
    } else {
        text.push_str(key);
    }
    let line = STANDARD.decode(text.trim()).ok().map(Zeroizing::new);
    let line = line.as_ref().and_then(|line| std::str::from_utf8(line).ok());
    let key: AgentKey = line
        .context("this is no import key: `threatlockdown agents key` on the manager prints one")?
        .trim_end()
        .parse()
        .context("the import key holds no agent")?;
    let path = home.join("etc/client.keys");
    if !home.join("etc").is_dir() {
        bail!("`{}` is no installation: it has no `etc`", home.display());
    }
    if agents_in(&path)? > 1 {
        bail!("`{}` has several agents: it is a manager's, `import` is for an agent's host", path.display());
    }
    let line = Zeroizing::new(format!("{}\n", *key.to_line()));
    tld_server::registry::replace_secret(&path, line.as_bytes())
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    // What was counted with another manager or key says nothing about this one's messages.
    let counter = home.join("queue/rids").join(&key.id);
    match std::fs::remove_file(&counter) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove `{}`", counter.display()));
        }
        _ => {}
    }
    println!("{} this is agent {} ({}) now; restart it", Paint::stdout().good("imported:"), key.id, key.name);
    Ok(ExitCode::SUCCESS)
}

fn agents_in(path: &Path) -> Result<usize> {
    match durable::read_bounded(path, 64 << 20) {
        Ok(bytes) => Ok(KeyFile::parse(&String::from_utf8_lossy(&Zeroizing::new(bytes))).0.agents().count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}
