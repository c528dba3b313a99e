//! The whole agent: responder, collectors, spool and uplink, until it is told to stop.
//!
//! Start-up: signals, home, configuration, responder (which makes the world match its journal first), then `front`, which
//! is everything that reads what others wrote. A changed configuration starts `front` anew; the responder stays.
//! As root with a service user, `front` is a process of that user ([`split`]).
//! Invariant: a configuration with errors never replaces the one that runs.

mod feed;
mod front;
mod level;
mod orders;
mod split;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tld_config::{Identity, InternalOptions, Role, Settings};
use tld_model::Zone;
use tld_respond::ossec_log::{Level, Log};
use tld_respond::{Limits, Report};
use tld_sys::clock::SystemClock;
use tld_sys::durable;
use tld_sys::service_user::ServiceUser;
use tld_sys::signal::{Signal, Signals, termination};
use tld_xml::Source;

use crate::key;
use crate::responder::intake::Sink;
use crate::responder::listen::Admission;
use crate::responder::runs::Runs;
use crate::responder::voice::Voice;
use crate::responder::{self, Control, PidFile, Service};
use front::Front;

/// The name in the log and for the control script.
const DAEMON: &str = "wazuh-agentd";
const FOLDERS: [(&str, u32); 9] = [
    ("etc", 0o770),
    ("etc/shared", 0o770),
    ("queue", 0o750),
    ("queue/rids", 0o770),
    ("queue/logcollector", 0o770),
    ("queue/sockets", 0o770),
    ("queue/threatlockdown", 0o770),
    ("var", 0o750),
    ("var/run", 0o770),
];
const SHARED: &str = "etc/shared/agent.conf";
const CONF_LIMIT: usize = 16 << 20;

/// What the service is told on its command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example, on a host whose etc/ossec.conf names its manager in <client>:
  sudo threatlockdown-agent run --home /var/ossec
Without a key the agent asks the manager for one; see <enrollment>.")]
pub struct Options {
    /// Home directory
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
    /// Only log what responses would do
    #[arg(long)]
    pub dry_run: bool,
    /// Started as root, everything but the responder runs as this user if it exists
    #[arg(long, value_name = "NAME", default_value = "wazuh")]
    pub user: String,
    /// Name of the nftables table
    #[arg(long, value_name = "NAME", default_value = tld_respond::TABLE, hide = true)]
    pub table: String,
    /// Journal directory in place of the host's
    #[arg(long, value_name = "DIR", hide = true)]
    pub journal_directory: Option<PathBuf>,
    /// This process is the unprivileged part; the responder is at the other end of standard input
    #[arg(long, hide = true)]
    pub behind_responder: bool,
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
    /// The configuration has errors, which are in the log.
    #[error("(1202): the configuration has errors: see above and `logs/ossec.log`")]
    Configuration,
    /// The responder cannot be had.
    #[error(transparent)]
    Responder(#[from] responder::RunError),
    /// A part of the rest cannot be had.
    #[error(transparent)]
    Front(#[from] front::FrontError),
    /// The service cannot be two processes.
    #[error(transparent)]
    Split(#[from] split::SplitError),
}

/// Settings with the tunables.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) settings: Settings,
    pub(crate) options: InternalOptions,
}

/// Runs until SIGTERM or SIGINT. Call it before any thread is started.
///
/// # Errors
/// When a part of the service cannot be had.
pub fn run(options: &Options) -> Result<(), RunError> {
    let signals = termination().map_err(RunError::Signals)?;
    if options.behind_responder {
        return split::front(options, &signals);
    }
    let home = options.home.as_path();
    let at = |source| RunError::Home { path: home.to_path_buf(), source };
    responder::prepare(home).and_then(|()| responder::make_folders(home, &FOLDERS)).map_err(at)?;
    let user = ServiceUser::named(&options.user).filter(|_| !options.test);
    if let Some(user) = user {
        split::hand_over(home, user)?;
    }
    let admission = Admission::of(home).map_err(at)?;
    let voice = voice(options, DAEMON);
    let read = read(options, &voice).ok_or(RunError::Configuration)?;
    if options.test {
        return Ok(());
    }
    // A host whose executables cannot be written can still be watched.
    if let Err(error) = tld_respond::installation::install(home) {
        voice.error(&format!("{error}; orders of a response that is missing end as not found"));
    }
    let (reports, told) = channel();
    let service = start_responder(options, &read, admission, reports)?;
    let _pid = PidFile::new(home, responder::DAEMON);
    if user.is_some() {
        return split::responder(service, told, &signals, &voice);
    }
    let sink = || service.responder.clone().map(|responder| Box::new(responder) as Box<dyn Sink>);
    let served = serve(options, &signals, read, admission, &voice, told, sink);
    service.stop(false);
    served
}

fn voice(options: &Options, name: &'static str) -> Voice {
    let log = Log::new(options.home.join("logs/ossec.log"), Arc::new(SystemClock), Zone::system(), true);
    Voice::new(log.named(name), options.debug)
}

/// The endpoint's responder with its two sockets.
fn start_responder(
    options: &Options,
    read: &Read,
    admission: Admission,
    reports: Sender<Report>,
) -> Result<Service, RunError> {
    let voice = voice(options, responder::DAEMON);
    let runs = Runs::new(&options.home, "agent", options.dry_run, voice.clone());
    let control = Control::new(&read.settings, &read.options, runs.clone(), voice.clone());
    let of_responder = responder::Options {
        home: options.home.clone(),
        config: options.config.clone(),
        debug: options.debug,
        test: false,
        revert_all: false,
        dry_run: options.dry_run,
        table: options.table.clone(),
    };
    let (limits, parts) = (Limits::of(&read.options), (admission, runs, control));
    Ok(Service::start(&of_responder, &read.settings, limits, parts, voice, Some(reports))?)
}

/// Serves until it is told to stop, with the configuration as it changes.
fn serve(
    options: &Options,
    signals: &Signals,
    mut current: Read,
    admission: Admission,
    voice: &Voice,
    told: Receiver<Report>,
    sink: impl Fn() -> Option<Box<dyn Sink>>,
) -> Result<(), RunError> {
    let shared = front::Shared::new(options, admission, voice.clone(), told)?;
    let _pid = PidFile::new(&options.home, DAEMON);
    loop {
        let front = Front::start(options, &shared, &current, sink())?;
        voice.info(&format!(
            "started in `{}`: {} log sources",
            options.home.display(),
            current.settings.localfiles.len()
        ));
        let fresh = wait(options, signals, &front, voice);
        front.stop(fresh.is_some());
        match fresh {
            Some(fresh) => current = fresh,
            None => return Ok(()),
        }
    }
}

/// Waits for the end (none), or for another configuration that is fit for use.
fn wait(options: &Options, signals: &Signals, front: &Front, voice: &Voice) -> Option<Read> {
    loop {
        match signals.wait(Duration::from_millis(300)) {
            Ok(Some(Signal::Terminate | Signal::Interrupt)) => return None,
            Ok(Some(Signal::Hangup)) => {
                if let Some(fresh) = read(options, voice) {
                    voice.info("the configuration is read anew");
                    return Some(fresh);
                }
                voice.error("not reloaded: the running configuration stays; mend the errors above");
            }
            Ok(None) => {}
            Err(error) => {
                voice.error(&format!("signals cannot be read, stopping: {error}"));
                return None;
            }
        }
        if front.wants_reload()
            && let Some(fresh) = read(options, voice)
        {
            voice.info("the manager has pushed another configuration; it is used from now on");
            return Some(fresh);
        }
    }
}

/// Who this agent is for blocks of the pushed configuration.
fn identity(home: &std::path::Path, sources: &[Source]) -> Identity {
    // The profile stands in the host's own file, which is read for it alone first.
    let own = sources.first().map(|own| tld_config::parse(own, Role::Agent).settings.client);
    let key = key::load(home).ok().flatten();
    Identity {
        name: key.map_or_else(tld_sys::host::name, |key| key.name),
        system: crate::identity::system(),
        profile: own.and_then(|client| client.config_profile).unwrap_or_default(),
    }
}

/// Reads everything and says what is wrong; none if something is.
pub(crate) fn read(options: &Options, voice: &Voice) -> Option<Read> {
    let home = options.home.as_path();
    let (internal, mut diagnostics) = tld_config::internal_options(home);
    let own = options.config.clone().unwrap_or_else(|| home.join("etc/ossec.conf"));
    let mut sources = Vec::new();
    for (path, must) in [(own, true), (home.join(SHARED), false)] {
        if !must && internal.value("agent.remote_conf") == Some(0) {
            continue;
        }
        let name = path.strip_prefix(home).unwrap_or(&path).display().to_string();
        match durable::read_bounded(&path, CONF_LIMIT) {
            Ok(text) => sources.push(Source::new(name, text)),
            Err(error) if !must && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                voice.error(&format!("(1103): cannot read `{}`: {error}", path.display()));
                if must {
                    return None;
                }
            }
        }
    }
    let commands = internal.value("logcollector.remote_commands") == Some(1);
    let loaded = tld_config::parse_agent(&sources, &identity(home, &sources), commands);
    let refused = loaded.has_errors() || diagnostics.iter().any(tld_xml::Diagnostic::is_error);
    diagnostics.extend(loaded.diagnostics);
    for diagnostic in &diagnostics {
        let level = if diagnostic.is_error() { Level::Error } else { Level::Warning };
        voice.say(level, &responder::one_line(&diagnostic.render(false)));
    }
    (!refused).then_some(Read { settings: loaded.settings, options: internal })
}
