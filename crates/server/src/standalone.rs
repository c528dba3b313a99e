//! Manager and endpoint in one process: collectors feed the pipeline, the pipeline's orders go to the responder's carrier.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_collect::Collector;
use tld_model::{Event, Timestamp, Zone};
use tld_respond::carrier::Carrier;
use tld_rules::{Analyzer, Mode, Ruleset};
use tld_sys::clock::Clock;
use tld_sys::queue::{self, Limits, Receiver, Sender};

use crate::dispatch::fleet::Fleet;
use crate::dispatch::{Dispatch, OrderIds};
use crate::lanes;
use crate::load::Prepared;
use crate::log::Log;
use crate::logtest::{self, LogtestServer, RulesetSource};
use crate::logtime::LogTime;
use crate::output::file::{FileOutput, Files};
use crate::output::past::PastDays;
use crate::output::{Record, state};
use crate::pipeline::{Archives, Counts, Fresh, Observer, Pipeline};
use crate::sequencer::{Gap, Rotation, Sequencer};
use crate::statistics::{Statistics, Thresholds};

/// Events that may wait for the analysis; then the collectors wait.
const QUEUE: Limits = Limits { items: 16_384, bytes: 16 << 20 };
/// An event or two may be judged before a new ruleset is taken; an analysis that takes longer is stuck behind its outputs.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);
/// Bound of a state file read at start.
const STATE_LIMIT: u64 = 64 << 20;

/// What a standalone service is made of.
pub struct Setup {
    /// Home directory.
    pub home: PathBuf,
    /// Configuration and ruleset.
    pub prepared: Prepared,
    /// Where orders go.
    pub carrier: Box<dyn Carrier>,
    /// A manager's orders, which go to its agents too.
    pub fleet: Option<Arc<Fleet>>,
    /// Clock.
    pub clock: Arc<dyn Clock>,
    /// Zone of the host.
    pub zone: Zone,
    /// The service's own log.
    pub log: Log,
    /// Watcher of the pipeline.
    pub observer: Option<Box<dyn Observer>>,
    /// Count by the log's own time (replays).
    pub log_time: bool,
    /// Orders are marked as dry run.
    pub dry_run: bool,
    /// Journal directory in place of the host's, for tests.
    pub journal_directory: Option<PathBuf>,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("home", &self.home).finish_non_exhaustive()
    }
}

/// The service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread or file of the outputs.
    #[error("cannot start the outputs: {0}")]
    Outputs(#[source] io::Error),
    /// The analysis thread.
    #[error("cannot start the analysis: {0}")]
    Analysis(#[source] io::Error),
    /// The collectors.
    #[error("cannot start the collectors: {0}")]
    Collect(#[from] tld_collect::StartError),
}

/// A running service.
#[derive(Debug)]
pub struct Standalone {
    collector: Collector,
    events: Sender<Event>,
    fresh: SyncSender<Fresh>,
    outputs: FileOutput,
    analysis: JoinHandle<Counts>,
    ruleset: Arc<RwLock<Arc<Ruleset>>>,
    logtest: Option<LogtestServer>,
    log: Log,
}

impl Standalone {
    /// Starts outputs, then the analysis, then the collectors, so that nothing is read before it can be judged.
    ///
    /// # Errors
    /// A part does not start; the ones before it are stopped again by being dropped.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        Self::start_on(setup, entrance())
    }

    /// The same with a queue that others hold the entrance of already.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_on(
        setup: Setup,
        (events, incoming): (Sender<Event>, Receiver<Event>),
    ) -> Result<Self, StartError> {
        let settings = &setup.prepared.settings;
        let files = Files {
            home: setup.home.clone(),
            alerts_json: settings.global.jsonout_output,
            alerts_plain: settings.global.alerts_log,
            archives_json: settings.global.logall_json,
            archives_plain: settings.global.logall,
            firewall: setup.prepared.ruleset.options().log_fw,
            gap: gap(&setup.prepared),
        };
        let mut outputs = FileOutput::start(files, setup.zone.clone(), Arc::clone(&setup.clock))
            .map_err(StartError::Outputs)?;
        if !setup.log_time {
            let tunable = |name: &str, default| setup.prepared.tunables.value(name).unwrap_or(default);
            let days = PastDays {
                compress: tunable("monitord.compress", 1) != 0,
                wait: Duration::from_secs(tunable("monitord.day_wait", 10).into()),
            };
            outputs
                .keep_past(days, setup.home.clone(), setup.zone.clone(), Arc::clone(&setup.clock))
                .map_err(StartError::Outputs)?;
        }
        let collect = tld_collect::Setup {
            home: setup.home.clone(),
            state: setup.home.join("queue/logcollector/threatlockdown-positions.json"),
            clock: Arc::clone(&setup.clock),
            journal_directory: setup.journal_directory.clone(),
            log: {
                let log = setup.log.clone();
                Arc::new(move |line: &str| log.warning(line))
            },
        };
        let settings = Arc::clone(&setup.prepared.settings);
        let log = setup.log.clone();
        let (fresh, changes) = sync_channel(1);
        let ruleset = Arc::new(RwLock::new(Arc::clone(&setup.prepared.ruleset)));
        let logtest = serve_logtest(&setup, &ruleset);
        let (analyzer, pipeline) = pipeline(setup, outputs.queue());
        let analyse = move || pipeline.run(analyzer, &incoming, lanes::usual(), || changes.try_recv().ok());
        let analysis = std::thread::Builder::new()
            .name("analysis".into())
            .spawn(analyse)
            .map_err(StartError::Analysis)?;
        let collector = Collector::start(&settings.localfiles, collect, events.clone())?;
        Ok(Self { collector, events, fresh, outputs, analysis, ruleset, logtest, log })
    }

    /// Entrance for events that no collector brings (sockets, tests).
    pub fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// Hands a new ruleset with its policy to the running analysis and waits until they are in force; false when the
    /// analysis does not take them in time.
    #[must_use]
    pub fn reload(&self, prepared: &Prepared) -> bool {
        *self.ruleset.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&prepared.ruleset);
        let (taken, answer) = sync_channel(1);
        let fresh =
            Fresh { ruleset: Arc::clone(&prepared.ruleset), policy: Arc::clone(&prepared.policy), taken };
        self.fresh.send(fresh).is_ok() && answer.recv_timeout(TAKEN_WITHIN).is_ok()
    }

    /// Output failures since the last call.
    pub fn failures(&self) -> Vec<String> {
        self.outputs.failures()
    }

    /// Stops reading, judges what was read, writes it out. Blocks stay.
    pub fn stop(self) -> Counts {
        if let Some(logtest) = self.logtest {
            logtest.stop();
        }
        if let Err(error) = self.collector.stop() {
            self.log.error(&format!(
                "the positions in the logs were not saved, some lines will be read again: {error}"
            ));
        }
        drop(self.events);
        let counts = self.analysis.join().unwrap_or_default();
        self.outputs.finish();
        counts
    }
}

/// The queue of events that wait for the analysis.
pub fn entrance() -> (Sender<Event>, Receiver<Event>) {
    queue::bounded(QUEUE, Event::weight)
}

/// Tools ask the running ruleset what a line becomes. Without the socket the service is still worth running.
fn serve_logtest(setup: &Setup, ruleset: &Arc<RwLock<Arc<Ruleset>>>) -> Option<LogtestServer> {
    let limits = setup.prepared.settings.rule_test;
    if !limits.enabled {
        return None;
    }
    let path = setup.home.join("queue/sockets/logtest");
    let ruleset = Arc::clone(ruleset);
    let source: RulesetSource =
        Arc::new(move || Arc::clone(&ruleset.read().unwrap_or_else(PoisonError::into_inner)));
    let served = logtest::serve(
        path.clone(),
        source,
        logtest::settings(setup.zone.clone()),
        limits,
        Arc::clone(&setup.clock),
    );
    served
        .inspect_err(|error| {
            setup.log.warning(&format!("the logtest socket `{}` is not served: {error}", path.display()));
        })
        .ok()
}

fn pipeline(setup: Setup, records: Sender<Record>) -> (Analyzer, Pipeline) {
    let Setup { home, prepared, carrier, fleet, clock, zone, observer, log, log_time, dry_run, .. } = setup;
    let global = &prepared.settings.global;
    let start = Timestamp::from_nanos(clock.wall_nanos());
    let rotation = Rotation {
        plain: global.alerts_log,
        gap: gap(&prepared),
        interval: global.rotate_interval,
        size: global.max_output_size,
    };
    let analyzer = analyzer(&home, &prepared, &zone);
    let ids = OrderIds::new(start, std::process::id());
    let node = global.node_name.clone().unwrap_or_default();
    let thresholds = Thresholds::of(global.stats, &prepared.tunables);
    let statistics = (!log_time).then(|| Statistics::new(&home, zone.clone(), thresholds));
    let pipeline = Pipeline {
        policy: prepared.policy,
        sequencer: Sequencer::new(home.join("logs/alerts"), rotation, zone.clone()),
        dispatch: match fleet {
            Some(fleet) => Dispatch::with_fleet(fleet, ids, node, dry_run),
            None => Dispatch::new(carrier, ids, node, dry_run),
        },
        records,
        archives: Archives { json: global.logall_json, plain: global.logall },
        zone: zone.clone(),
        clock,
        log_time: log_time.then(|| LogTime::new(zone, start)),
        statistics,
        log_fw: prepared.ruleset.options().log_fw,
        log,
        observer,
        counts: Counts::default(),
    };
    (analyzer, pipeline)
}

fn gap(prepared: &Prepared) -> Gap {
    match &prepared.plain_form {
        None => Gap::Id,
        Some(form) if form.has_offset() => Gap::Offset,
        Some(_) => Gap::Nothing,
    }
}

fn analyzer(home: &Path, prepared: &Prepared, zone: &Zone) -> Analyzer {
    let settings = tld_rules::Settings {
        mode: Mode::Daemon,
        manager_name: tld_sys::host::name(),
        short_host: tld_sys::host::short_name(),
        zone: zone.clone(),
        cluster: None,
        with_plain: prepared.settings.global.alerts_log,
        plain_form: prepared.plain_form.clone(),
    };
    let mut analyzer = Analyzer::new(Arc::clone(&prepared.ruleset), settings);
    let seen = lines(&home.join("queue/fts/fts-queue"));
    analyzer.restore_fts(seen.iter().map(Vec::as_slice));
    for (host, rule, text) in state::last_entries(home) {
        analyzer.restore_diff(host.as_bytes(), rule, &text);
    }
    analyzer
}

fn lines(path: &Path) -> Vec<Vec<u8>> {
    let Ok(file) = fs::File::open(path) else { return Vec::new() };
    BufReader::new(file.take(STATE_LIMIT)).split(b'\n').map_while(Result::ok).collect()
}
