//! The responder as a service: it stands in for the execution daemon of a 4.x installation, on that daemon's sockets,
//! and carries requests out durably.
//!
//! Invariant: a stop lifts nothing unless that was asked for; the next start goes on from the journal.

mod control;
pub(crate) mod intake;
pub(crate) mod listen;
pub mod request;
pub(crate) mod runs;
pub mod table;
pub(crate) mod voice;

use std::error::Error;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_config::{LoadError, Role, Settings};
use tld_model::Zone;
use tld_respond::ossec_log::{Level, Log};
use tld_respond::{Limits, Mode, Report, Responder, RevertSelector, Setup, StartError};
use tld_sys::clock::{Deadline, SystemClock};
use tld_sys::signal::{Signal, Signals, termination};
use tld_sys::{durable, privilege};

pub(crate) use control::Control;
use intake::Intake;
use listen::Admission;
pub use listen::ListenError;
use runs::Runs;
use voice::Voice;

/// The daemon's name in the log and for the control script.
pub(crate) const DAEMON: &str = "wazuh-execd";
const REQUESTS: &str = "queue/alerts/execq";
const CONTROL: &str = "queue/sockets/com";
const FOLDERS: [(&str, u32); 6] = [
    ("active-response/bin", 0o750),
    ("etc/shared", 0o770),
    ("logs", 0o770),
    ("queue/alerts", 0o770),
    ("queue/sockets", 0o770),
    ("var/threatlockdown", 0o750),
];
/// How long a stop waits for the undos it was asked for.
const REVERT_ALL: Duration = Duration::from_secs(25);

/// What the service is told on its command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example, on a host with a 4.x agent whose execution daemon is stopped:
  sudo threatlockdown-agent responder --home /var/ossec")]
pub struct Options {
    /// Home directory of the installation
    #[arg(long, value_name = "DIR", default_value = "/var/ossec")]
    pub home: PathBuf,
    /// Configuration file, in place of etc/ossec.conf
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log more; twice: every message
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub debug: u8,
    /// Only read the configuration
    #[arg(short, long)]
    pub test: bool,
    /// When stopped, undo everything that is in force (by default it stays and ends on time)
    #[arg(long)]
    pub revert_all: bool,
    /// Only log what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Name of the nftables table
    #[arg(long, value_name = "NAME", default_value = tld_respond::TABLE, hide = true)]
    pub table: String,
}

/// The service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Signals are not to be had.
    #[error("cannot take over the signals")]
    Signals(#[source] io::Error),
    /// The home directory is not usable.
    #[error("cannot use `{}`", path.display())]
    Home {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The configuration has errors, which are in the log.
    #[error("(1202): `{}` has errors: see above and `logs/ossec.log`", .0.display())]
    Configuration(PathBuf),
    /// A socket is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The responder cannot start.
    #[error("cannot start the responder")]
    Responder(#[from] StartError),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// An error with all of its reasons, in one line.
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(reason) = next {
        let reason_text = reason.to_string();
        // Transparent errors tell the same twice.
        if !text.ends_with(&reason_text) {
            text.push_str(": ");
            text.push_str(&reason_text);
        }
        next = reason.source();
    }
    text
}

/// Runs until it is told to stop by SIGTERM or SIGINT. Call it before any thread is started.
///
/// # Errors
/// When a part of the service cannot be had.
pub fn run(options: &Options) -> Result<(), RunError> {
    let signals = termination().map_err(RunError::Signals)?;
    let home = options.home.as_path();
    let at = |source| RunError::Home { path: home.to_path_buf(), source };
    let admission = Admission::of(home).map_err(at)?;
    let (internal, mut diagnostics) = tld_config::internal_options(home);
    let level = u32::from(options.debug).max(internal.value("execd.debug").unwrap_or(0));
    let log =
        Log::new(home.join("logs/ossec.log"), Arc::new(SystemClock), Zone::system(), true).named(DAEMON);
    let voice = Voice::new(log, u8::try_from(level).unwrap_or(u8::MAX));
    let role = role(home);
    let loaded = tld_config::load(home, options.config.as_deref(), role)?;
    let refused = loaded.has_errors();
    diagnostics.extend(loaded.diagnostics);
    for diagnostic in &diagnostics {
        let level = if diagnostic.is_error() { Level::Error } else { Level::Warning };
        voice.say(level, &one_line(&diagnostic.render(false)));
    }
    if refused {
        return Err(RunError::Configuration(
            options.config.clone().unwrap_or_else(|| home.join("etc/ossec.conf")),
        ));
    }
    if options.test {
        return Ok(());
    }
    prepare(home).map_err(at)?;
    let word = if role == Role::Manager { "manager" } else { "agent" };
    let runs = Runs::new(home, word, options.dry_run, voice.clone());
    let limits = Limits::of(&internal);
    let control = Control::new(&loaded.settings, &internal, runs.clone(), voice.clone());
    let parts = (admission, runs, control);
    let service = Service::start(options, &loaded.settings, limits, parts, voice, None)?;
    let _pid = PidFile::new(home, DAEMON);
    service.wait(&signals);
    service.stop(options.revert_all);
    Ok(())
}

/// A manager's installation has the analysis daemon.
fn role(home: &Path) -> Role {
    if home.join("bin/wazuh-analysisd").exists() { Role::Manager } else { Role::Agent }
}

pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Makes what is missing of the directories we use; an installation's own stay as they are.
pub(crate) fn prepare(home: &Path) -> io::Result<()> {
    make_folders(home, &FOLDERS)
}

pub(crate) fn make_folders(home: &Path, folders: &[(&str, u32)]) -> io::Result<()> {
    for (folder, mode) in folders {
        let path = home.join(folder);
        if !path.exists() {
            durable::create_dirs(&path, *mode)?;
            if let Some(group) = privilege::group("wazuh") {
                // Without privilege everything is ours anyway.
                let _ = chown(&path, None, Some(group));
            }
        }
    }
    Ok(())
}

/// The running parts.
#[derive(Debug)]
pub(crate) struct Service {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    pub(crate) responder: Option<Arc<Responder>>,
    reporter: Option<JoinHandle<()>>,
    voice: Voice,
}

impl Service {
    /// Starts all parts; what a manager is to know goes to `reports`, if there is one.
    pub(crate) fn start(
        options: &Options,
        settings: &Settings,
        limits: Limits,
        (admission, runs, control): (Admission, Runs, Control),
        voice: Voice,
        reports: Option<Sender<Report>>,
    ) -> Result<Self, RunError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut service = Self { stop, threads: Vec::new(), responder: None, reporter: None, voice };
        let home = options.home.as_path();
        let listener = listen::stream(&home.join(CONTROL))?;
        let disabled = settings.responder.disabled;
        // What an earlier run put in place must end on time, also where nothing new is taken.
        if !disabled || tld_respond::journal::list(home, 0).is_ok_and(|open| !open.is_empty()) {
            service.start_responder(options, settings, limits, reports)?;
        }
        let flag = Arc::clone(&service.stop);
        let control = Arc::new(control);
        service.thread("com", move || control.serve(&listener, admission, &flag))?;
        if disabled {
            service.voice.info("(1350): active response is disabled; requests are not taken");
            return Ok(service);
        }
        let socket = listen::datagrams(&home.join(REQUESTS))?;
        if let Some(responder) = service.responder.clone() {
            let (own, sink) = (settings.responder.clone(), Box::new(responder));
            let intake = Intake::new(home, sink, Some(runs), service.voice.clone(), options.dry_run, own);
            let flag = Arc::clone(&service.stop);
            service.thread("execq", move || intake.serve(&socket, admission, &flag))?;
        }
        for (n, minutes) in settings.responder.repeated_offenders.iter().enumerate() {
            service.voice.info(&format!("repeated offenders, step {}: {minutes} minutes", n + 1));
        }
        service.voice.info(&format!("started, taking requests on `{}`", home.join(REQUESTS).display()));
        Ok(service)
    }

    fn thread(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), RunError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work).map_err(RunError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    fn start_responder(
        &mut self,
        options: &Options,
        settings: &Settings,
        limits: Limits,
        reports: Option<Sender<Report>>,
    ) -> Result<(), RunError> {
        let voice = self.voice.clone();
        let mode = if options.dry_run {
            Mode::DryRun("started with --dry-run".into())
        } else if privilege::has_net_admin() {
            Mode::Real
        } else {
            voice.warning("without CAP_NET_ADMIN no address can be blocked by ourselves");
            Mode::DryRun("no CAP_NET_ADMIN".into())
        };
        let hash = tld_respond::self_hash()
            .inspect_err(|error| {
                voice.warning(&format!("our own file cannot be read, responses run as processes: {error}"));
            })
            .ok();
        let setup = Setup {
            table: options.table.clone(),
            mode,
            repeated_offenders: settings.responder.repeated_offenders.clone(),
            protected: settings.responder.protected.clone(),
            managers: settings.responder.managers.clone(),
            limits,
            self_hash: hash,
            reports,
            ..Setup::new(
                options.home.clone(),
                Arc::new(SystemClock),
                Arc::new(move |line| voice.warning(line)),
            )
        };
        let (sender, outcomes) = channel();
        self.responder = Some(Arc::new(Responder::start(setup, sender)?));
        let voice = self.voice.clone();
        let report = move || {
            for outcome in outcomes {
                voice.outcome(&outcome);
            }
        };
        let reporter = std::thread::Builder::new().name("outcomes".into()).spawn(report);
        self.reporter = Some(reporter.map_err(RunError::Thread)?);
        Ok(())
    }

    /// Until TERM or INT. HUP is ignored, as the contract has it.
    fn wait(&self, signals: &Signals) {
        loop {
            match signals.wait(Duration::from_secs(3600)) {
                Ok(Some(Signal::Terminate | Signal::Interrupt)) => return,
                Ok(Some(Signal::Hangup) | None) => {}
                Err(error) => {
                    self.voice.error(&format!("signals cannot be read, stopping: {error}"));
                    return;
                }
            }
        }
    }

    /// Ends all parts.
    pub(crate) fn stop(self, revert_all: bool) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            let _ = thread.join();
        }
        let responder = self.responder.and_then(Arc::into_inner);
        if revert_all {
            self.voice.info("(1314): Shutdown received. Deleting responses.");
            if let Some(responder) = &responder {
                revert(responder, &self.voice);
            }
        } else {
            let count = responder.as_ref().map_or(0, |responder| responder.active().len());
            self.voice
                .info(&format!("shutdown received; responses in force: {count}, they stay and end on time"));
        }
        if let Some(responder) = responder {
            responder.stop();
        }
        if let Some(reporter) = self.reporter {
            let _ = reporter.join();
        }
    }
}

fn revert(responder: &Responder, voice: &Voice) {
    responder.revert(RevertSelector::All);
    let patience = Deadline::after(REVERT_ALL);
    loop {
        let left = responder.active().len();
        if left == 0 {
            return;
        }
        if patience.passed() {
            voice.warning(&format!("{left} responses are not undone yet; the next start goes on"));
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Tells the installation's control script that the execution daemon runs, and as which process.
#[derive(Debug)]
pub(crate) struct PidFile(Option<PathBuf>);

impl PidFile {
    pub(crate) fn new(home: &Path, daemon: &str) -> Self {
        let folder = home.join("var/run");
        let pid = std::process::id();
        let path = folder.is_dir().then(|| folder.join(format!("{daemon}-{pid}.pid")));
        Self(path.filter(|path| durable::replace(path, format!("{pid}\n").as_bytes(), 0o640).is_ok()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}
