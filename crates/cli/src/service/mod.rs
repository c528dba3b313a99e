//! The service behind `standalone` and `manager`: responder, outputs, analysis, collectors, and a manager's agents; signals
//! until it is told to stop. As root with a service user it is two processes ([`split`]), otherwise one.

mod split;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use tld_config::Settings;
use tld_model::{Alert, Event, Outcome, OutcomeKind, Zone};
use tld_respond::carrier::Carrier;
use tld_respond::carrier::channel::ChannelCarrier;
use tld_respond::{CrashPoint, Responder};
use tld_rules::Verdict;
use tld_server::dispatch::Considered;
use tld_server::dispatch::fleet::Fleet;
use tld_server::load::Prepared;
use tld_server::log::{Level, Log};
use tld_server::manager::Manager;
use tld_server::pipeline::{Counts, Observer};
use tld_server::presence::{Presence, Report};
use tld_server::standalone::{Setup, Standalone};
use tld_sys::clock::{Clock, SystemClock};
use tld_sys::service_user::ServiceUser;
use tld_sys::signal::{Signal, Signals, termination};

use crate::check;

/// What every form of the service is started with.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// This configuration file instead of etc/ossec.conf of the home
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Started as root, everything but the responder runs as this user if it exists
    #[arg(long, value_name = "NAME", default_value = "wazuh")]
    user: String,
    /// Name of the nftables table that blocks live in
    #[arg(long, value_name = "NAME", default_value = "threatlockdown", hide = true)]
    pub(crate) table: String,
    /// Journal directory in place of the host's
    #[arg(long, value_name = "DIR", hide = true)]
    journal_directory: Option<PathBuf>,
    /// This process is the unprivileged part; the responder is at the other end of standard input
    #[arg(long, hide = true)]
    behind_responder: bool,
}

/// Which service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// This host alone.
    Standalone {
        /// Count by the time in the lines.
        log_time: bool,
    },
    /// This host and agents.
    Manager,
}

/// A service to run.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its home.
    pub(crate) home: PathBuf,
    /// Which one.
    pub(crate) form: Form,
    /// How.
    pub(crate) options: Options,
}

impl Task {
    /// Runs it, in one process or two, until it is told to stop.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if self.options.behind_responder {
            return split::analysis(self);
        }
        match ServiceUser::named(&self.options.user) {
            Some(user) => split::responder(self, user),
            None => whole(self),
        }
    }
}

/// What every part of the service shares.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) home: PathBuf,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) zone: Zone,
    pub(crate) log: Log,
}

impl Ground {
    /// With `echo` the service's log is also shown on standard error.
    pub(crate) fn of(home: &Path, echo: bool) -> Self {
        let (clock, zone) = (Arc::new(SystemClock), Zone::system());
        let log =
            Log::new(home.join("logs/ossec.log"), Arc::<SystemClock>::clone(&clock), zone.clone(), echo);
        Self { home: home.to_path_buf(), clock, zone, log }
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::<SystemClock>::clone(&self.clock)
    }
}

/// Everything in this process.
fn whole(task: &Task) -> Result<ExitCode> {
    let signals = termination().context("cannot take over the signals")?;
    let (home, options) = (task.home.clone(), &task.options);
    tld_server::home::prepare(&home, tld_config::DEFAULT_OSSEC_CONF)?;
    let _presence = Presence::take(&home)?;
    let ground = Ground::of(&home, true);
    let Some(prepared) = read(&home, options)? else { return Ok(ExitCode::FAILURE) };
    let (sender, outcomes) = channel();
    let responder = Responder::start(responder_setup(&ground, options, &prepared), sender)
        .context("cannot start the responder")?;
    if !tld_sys::privilege::has_net_admin() {
        ground
            .log
            .warning("without CAP_NET_ADMIN no address can be blocked: such responses are shown as dry-run");
    }
    let responder = Arc::new(responder);
    let carrier = Box::new(ChannelCarrier::new(Arc::clone(&responder)));
    let service = start(&ground, task, prepared.clone(), carrier)?;
    let reporter = report(outcomes, ground.log.clone(), service.fleet());
    wait(&signals, &ground, options, &service, prepared);
    let counts = service.stop();
    if let Some(responder) = Arc::into_inner(responder) {
        responder.stop();
    }
    let _ = reporter.join();
    ground.log.info(&format!(
        "stopped: {} events, {} alerts, {} responses sent; blocks stay and are reverted on time",
        counts.events, counts.alerts, counts.orders
    ));
    Ok(ExitCode::SUCCESS)
}

/// Reads and shows; none when there is an error to mend first.
pub(crate) fn read(home: &Path, options: &Options) -> Result<Option<Prepared>> {
    let reading = tld_server::load::load(home, options.config.as_deref())
        .with_context(|| format!("cannot start with home `{}`", home.display()))?;
    check::show(&reading.diagnostics);
    if reading.prepared.is_none() {
        eprintln!("nothing was started; mend the errors above and try again");
    }
    Ok(reading.prepared)
}

/// The responder of this host, configured.
pub(crate) fn responder_setup(ground: &Ground, options: &Options, prepared: &Prepared) -> tld_respond::Setup {
    let settings = &prepared.settings.responder;
    let log = ground.log.clone();
    let mode = if options.dry_run {
        tld_respond::Mode::DryRun("started with --dry-run".into())
    } else if tld_sys::privilege::has_net_admin() {
        tld_respond::Mode::Real
    } else {
        tld_respond::Mode::DryRun("blocking an address needs root (CAP_NET_ADMIN)".into())
    };
    tld_respond::Setup {
        table: options.table.clone(),
        mode,
        repeated_offenders: settings.repeated_offenders.clone(),
        protected: settings.protected.clone(),
        managers: settings.managers.clone(),
        limits: tld_respond::Limits::of(&tld_config::internal_options(&ground.home).0),
        zone: ground.zone.clone(),
        self_hash: own_hash(ground),
        crash_at: crash_point(),
        ..tld_respond::Setup::new(
            ground.home.clone(),
            ground.clock(),
            Arc::new(move |line: &str| log.line(Level::Warning, line)),
        )
    }
}

/// The mark by which our own executables in `active-response/bin` are known.
fn own_hash(ground: &Ground) -> Option<tld_respond::Hash> {
    tld_respond::self_hash()
        .inspect_err(|error| {
            ground
                .log
                .warning(&format!("our own executable cannot be read, responses run as processes: {error}"));
        })
        .ok()
}

/// For the crash tests: kill this process at a chosen step of the responder.
fn crash_point() -> Option<CrashPoint> {
    std::env::var("TLD_CRASH_AT").ok().and_then(|name| CrashPoint::from_name(&name))
}

/// A service that runs.
enum Running {
    Standalone(Box<Standalone>),
    Manager(Box<Manager>),
}

impl Running {
    fn reload(&self, prepared: &Prepared) -> bool {
        match self {
            Self::Standalone(service) => service.reload(prepared),
            Self::Manager(manager) => manager.reload(prepared),
        }
    }

    /// A manager's orders.
    fn fleet(&self) -> Option<Weak<Fleet>> {
        match self {
            Self::Standalone(_) => None,
            Self::Manager(manager) => Some(Arc::downgrade(manager.fleet())),
        }
    }

    fn failures(&self) -> Vec<String> {
        match self {
            Self::Standalone(service) => service.failures(),
            Self::Manager(manager) => manager.failures(),
        }
    }

    fn stop(self) -> Counts {
        match self {
            Self::Standalone(service) => service.stop(),
            Self::Manager(manager) => manager.stop(),
        }
    }
}

/// Outputs, analysis and collectors, and what a manager has besides.
fn start(ground: &Ground, task: &Task, prepared: Prepared, carrier: Box<dyn Carrier>) -> Result<Running> {
    let options = &task.options;
    let responses = prepared.policy.responses().len();
    let sources = prepared.settings.localfiles.len();
    let rules = prepared.ruleset.rules().count();
    let setup = Setup {
        home: ground.home.clone(),
        prepared,
        carrier,
        fleet: None,
        clock: ground.clock(),
        zone: ground.zone.clone(),
        log: ground.log.clone(),
        observer: Some(Box::new(Withheld { log: ground.log.clone() })),
        log_time: task.form == Form::Standalone { log_time: true },
        dry_run: options.dry_run,
        journal_directory: options.journal_directory.clone(),
    };
    let service = match task.form {
        Form::Standalone { .. } => Running::Standalone(Box::new(Standalone::start(setup)?)),
        Form::Manager => Running::Manager(Box::new(Manager::start(setup)?)),
    };
    ground.log.info(&format!(
        "started in `{}`: {rules} rules, {responses} responses, {sources} log sources",
        ground.home.display()
    ));
    if responses == 0 {
        ground.log.warning("no <active-response> is configured: attacks are reported, not answered");
    }
    Ok(service)
}

/// Says why a response that was asked for is not carried out: else nobody would know of an attack that was only watched.
struct Withheld {
    log: Log,
}

impl Observer for Withheld {
    fn event(&mut self, _: &Event, _: &Verdict<'_>) {}

    fn alert(&mut self, _: &Event, alert: &Alert, id: &str, considered: &[Considered]) {
        for one in considered {
            if let Err(reason) = &one.result {
                self.log.warning(&format!(
                    "withheld {} on {} (rule {}, alert {id}): {reason}",
                    one.response, one.target, alert.rule.id
                ));
            }
        }
    }
}

/// Serves until TERM or INT; HUP reloads.
fn wait(signals: &Signals, ground: &Ground, options: &Options, service: &Running, mut current: Prepared) {
    let mut report = Report {
        in_force: true,
        rules: current.ruleset.rules().count(),
        responses: current.policy.responses().len(),
        ..Report::default()
    };
    tell(ground, &report);
    loop {
        match signals.wait(Duration::from_millis(500)) {
            Ok(Some(Signal::Terminate | Signal::Interrupt)) => return,
            Ok(Some(Signal::Hangup)) => {
                let attempt = report.attempt + 1;
                report = match reload(ground, options, service, &current) {
                    Some((fresh, fresh_report)) => {
                        current = fresh;
                        Report { attempt, ..fresh_report }
                    }
                    None => Report { attempt, in_force: false, ..Report::default() },
                };
                tell(ground, &report);
            }
            Ok(None) => {}
            Err(error) => {
                ground.log.error(&format!("signals cannot be read, stopping: {error}"));
                return;
            }
        }
        for failure in service.failures() {
            ground.log.error(&failure);
        }
    }
}

fn tell(ground: &Ground, report: &Report) {
    if let Err(error) = report.write(&ground.home) {
        ground.log.warning(&format!("`threatlockdown reload` cannot be answered: {error}"));
    }
}

/// Reads everything anew; takes it if it has no error.
fn reload(
    ground: &Ground,
    options: &Options,
    service: &Running,
    current: &Prepared,
) -> Option<(Prepared, Report)> {
    let reading = tld_server::load::load(&ground.home, options.config.as_deref())
        .inspect_err(|error| ground.log.error(&format!("not reloaded: {error}")))
        .ok()?;
    for diagnostic in &reading.diagnostics {
        ground.log.line(Level::Warning, diagnostic.render(false).trim_end());
    }
    let Some(prepared) = reading.prepared else {
        ground.log.error("not reloaded: the running ruleset stays; mend the errors above");
        return None;
    };
    if !service.reload(&prepared) {
        ground.log.error("not reloaded: the analysis does not answer");
        return None;
    }
    let report = Report {
        in_force: true,
        rules: prepared.ruleset.rules().count(),
        responses: prepared.policy.responses().len(),
        restart: takes_restart(&current.settings, &prepared.settings, service.fleet().is_some()),
        ..Report::default()
    };
    let report = report.with(prepared.ruleset.differences(&current.ruleset));
    ground.log.info(&format!(
        "reloaded: {} rules ({} new, {} gone, {} changed), {} responses",
        report.rules, report.added.count, report.removed.count, report.changed.count, report.responses
    ));
    for part in &report.restart {
        ground.log.warning(&format!("{part} changed: this takes effect at the next start"));
    }
    // What needs a restart is compared with what the start read, however often rules are reloaded until then.
    Some((Prepared { settings: Arc::clone(&current.settings), ..prepared }, report))
}

/// Parts of the configuration that only a start reads, where they differ.
fn takes_restart(old: &Settings, new: &Settings, manages: bool) -> Vec<String> {
    let outputs = |settings: &Settings| {
        let global = settings.global.clone();
        format!("{:?}", tld_config::Global { white_list: Vec::new(), ..global })
    };
    // Options of single responses travel with each order here.
    let endpoint = |settings: &Settings| {
        format!("{:?}", tld_config::ResponderSettings { own: Vec::new(), ..settings.responder.clone() })
    };
    let ports = |settings: &Settings, syslog: bool| {
        let wanted = settings.remotes.iter().filter(|remote| remote.syslog == syslog);
        format!("{:?}", wanted.collect::<Vec<_>>())
    };
    let moved = |syslog| manages && ports(old, syslog) != ports(new, syslog);
    let parts = [
        ("<localfile>", format!("{:?}", old.localfiles) != format!("{:?}", new.localfiles)),
        ("<global>", outputs(old) != outputs(new)),
        ("the responder's part of <active-response>", endpoint(old) != endpoint(new)),
        ("<remote> for agents (secure)", moved(false)),
        ("<remote> for syslog", moved(true)),
        ("<auth>", manages && format!("{:?}", old.auth) != format!("{:?}", new.auth)),
        ("<rule_test>", format!("{:?}", old.rule_test) != format!("{:?}", new.rule_test)),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}

/// One line for each outcome, and its place in a manager's ledger, until the responder is gone.
pub(crate) fn report(
    outcomes: Receiver<Outcome>,
    log: Log,
    fleet: Option<Weak<Fleet>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for outcome in outcomes {
            log.line(urgency(outcome.kind), &sentence(&outcome));
            // Held, the fleet would keep the responder alive whose end this waits for.
            if let Some(fleet) = fleet.as_ref().and_then(Weak::upgrade) {
                fleet.own_outcome(outcome);
            }
        }
    })
}

fn urgency(kind: OutcomeKind) -> Level {
    match kind {
        OutcomeKind::RevertFailed | OutcomeKind::Failed => Level::Error,
        OutcomeKind::TimedOut | OutcomeKind::NotFound | OutcomeKind::Refused | OutcomeKind::Unsupported => {
            Level::Warning
        }
        _ => Level::Info,
    }
}

/// `applied firewall-drop600 on 203.0.113.7 (rule 5763, alert 1.2): …`
pub(crate) fn sentence(outcome: &Outcome) -> String {
    let rule = outcome.rule.map_or_else(String::new, |rule| format!("rule {rule}, "));
    let proof = outcome.evidence.read_back.as_deref().unwrap_or(&outcome.detail);
    format!(
        "{} {} on {} ({rule}alert {}, order {}): {proof}",
        outcome.kind, outcome.response, outcome.target, outcome.alert_id, outcome.order
    )
}
