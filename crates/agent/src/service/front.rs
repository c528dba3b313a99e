//! Everything of the agent that reads what others wrote: logs, the manager's messages, pushed files.
//! Invariant: at a stop, what was collected is in the spool or still in its source.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_collect::Collector;
use tld_config::Settings;
use tld_model::{Event, Outcome, Zone};
use tld_respond::Report;
use tld_sys::clock::{Clock, Deadline, SystemClock};
use tld_sys::durable;
use tld_sys::queue::{self, Limits};

use super::feed::Feed;
use super::level::Levels;
use super::orders::Orders;
use super::{Options, Read};
use crate::key::{CounterError, Numbers};
use crate::responder::intake::{Intake, Sink, disabled};
use crate::responder::listen::{self, Admission, ListenError};
use crate::responder::voice::Voice;
use crate::spool::{Spool, SpoolError};
use crate::uplink::lane::{Flight, Lane};
use crate::uplink::query::Answers;
use crate::uplink::status::{Standing, Status};
use crate::uplink::{self, Errand, Notice, Outcomes, Uplink};

const SPOOL: &str = "queue/threatlockdown/spool";
const FLIGHT: &str = "queue/threatlockdown/flight";
const FLIGHT_LIMIT: usize = 64 << 20;
const POSITIONS: &str = "queue/logcollector/threatlockdown-positions.json";
const EVENTS: &str = "queue/sockets/queue";
/// Events between the collectors and the spool.
const COLLECTED: Limits = Limits { items: 4096, bytes: 8 << 20 };
/// Messages of the manager that wait for the responder.
const ERRANDS: usize = 16_384;
const TICK: Duration = Duration::from_millis(200);
const NOTE: Duration = Duration::from_secs(1);
/// A spool that is full for longer makes a stop leave its lines in their files.
const SETTLES: Duration = Duration::from_secs(5);

/// A part cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The message counter.
    #[error("cannot count messages: {0}")]
    Counter(String),
    /// The local socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The collectors.
    #[error(transparent)]
    Collect(#[from] tld_collect::StartError),
    /// A thread.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

impl From<CounterError> for FrontError {
    fn from(error: CounterError) -> Self {
        Self::Counter(error.to_string())
    }
}

/// What outlives a change of the configuration.
#[derive(Debug)]
pub(super) struct Shared {
    home: PathBuf,
    admission: Admission,
    voice: Voice,
    status: Arc<Status>,
    outcomes: Arc<Outcomes>,
    told: Arc<Mutex<Receiver<Report>>>,
    /// The manager was told of this process.
    started: Arc<AtomicBool>,
    numbers: Arc<Mutex<Numbers>>,
}

impl Shared {
    pub(super) fn new(
        options: &Options,
        admission: Admission,
        voice: Voice,
        told: Receiver<Report>,
    ) -> Result<Self, FrontError> {
        Ok(Self {
            home: options.home.clone(),
            admission,
            voice,
            status: Arc::new(Status::new(Zone::system())),
            outcomes: Arc::default(),
            told: Arc::new(Mutex::new(told)),
            started: Arc::default(),
            numbers: Arc::new(Mutex::new(Numbers::load(&options.home)?)),
        })
    }
}

/// The running parts.
#[derive(Debug)]
pub(super) struct Front {
    stop: Arc<AtomicBool>,
    /// A stop is only a pause: the manager is not told goodbye.
    quiet: Arc<AtomicBool>,
    collector: Option<Collector>,
    /// Ends when the collectors are gone.
    feeder: Option<JoinHandle<()>>,
    threads: Vec<JoinHandle<()>>,
    notices: Receiver<Notice>,
    auto_restart: bool,
    spool: Arc<Spool>,
    lane: Arc<Lane>,
    shared: (PathBuf, Arc<Mutex<Numbers>>, Voice),
}

impl Front {
    /// Starts all parts: what takes before what gives.
    pub(super) fn start(
        options: &Options,
        shared: &Shared,
        read: &Read,
        sink: Option<Box<dyn Sink>>,
    ) -> Result<Self, FrontError> {
        let (home, settings) = (shared.home.as_path(), &read.settings);
        let stop = Arc::new(AtomicBool::new(false));
        let spool = Arc::new(Spool::open(&home.join(SPOOL), settings.client_buffer.spool_size)?);
        let lane = Arc::new(Lane::new(flight(home, &spool)));
        let status = Arc::clone(&shared.status);
        let (notice, notices) = channel();
        let mut front = Self {
            stop: Arc::clone(&stop),
            quiet: Arc::default(),
            collector: None,
            feeder: None,
            threads: Vec::new(),
            notices,
            auto_restart: settings.client.auto_restart,
            spool: Arc::clone(&spool),
            lane: Arc::clone(&lane),
            shared: (shared.home.clone(), Arc::clone(&shared.numbers), shared.voice.clone()),
        };
        let (errands, incoming) = sync_channel(ERRANDS);
        let answers = Answers::new(home, settings, &read.options, Arc::clone(&status), Arc::clone(&spool));
        let uplink = Uplink {
            home: shared.home.clone(),
            client: settings.client.clone(),
            labels: settings.labels.clone(),
            patience: Duration::from_secs(read.options.value("agent.recv_timeout").unwrap_or(60).into()),
            rate: settings.client_buffer.rate(),
            lane: Arc::clone(&lane),
            spool: Arc::clone(&spool),
            status: Arc::clone(&status),
            outcomes: Arc::clone(&shared.outcomes),
            answers: Arc::new(answers),
            errands,
            notices: notice,
            numbers: Arc::clone(&shared.numbers),
            voice: shared.voice.clone(),
            stop: Arc::clone(&stop),
            quiet: Arc::clone(&front.quiet),
            started: Arc::clone(&shared.started),
        };
        front.orders(options, shared, settings, sink, incoming)?;
        front.tell(shared)?;
        let feed = Feed {
            spool,
            lane,
            status: Arc::clone(&status),
            stop,
            voice: shared.voice.clone(),
            taken: Arc::new(AtomicU64::new(0)),
        };
        let (local, admission) = (feed.clone(), shared.admission);
        let socket = listen::datagrams(&home.join(EVENTS))?;
        front.thread("local-events", move || local.local(&socket, admission))?;
        front.thread("uplink", move || uplink.run())?;
        let every = read.options.value("agent.state_interval").unwrap_or(5);
        let levels = Levels::new(&settings.client_buffer, &read.options);
        front.upkeep(status, Duration::from_secs(every.into()), levels)?;
        front.collect(options, shared, read, feed)?;
        Ok(front)
    }

    fn thread(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(work)?);
        Ok(())
    }

    /// Hands the manager's orders to the responder.
    fn orders(
        &mut self,
        options: &Options,
        shared: &Shared,
        settings: &Settings,
        sink: Option<Box<dyn Sink>>,
        errands: Receiver<Errand>,
    ) -> io::Result<()> {
        let (own, notify, voice) = (&settings.responder, settings.client.notify_time, shared.voice.clone());
        let (lane, outcomes) = (Arc::clone(&self.lane), Arc::clone(&shared.outcomes));
        let told = move |outcome| lane.report(outcomes.add(outcome));
        let sink = match sink {
            Some(sink) if !own.disabled => sink,
            sink => return self.thread("orders", move || refuse(&errands, sink.as_deref(), &voice, told)),
        };
        let intake = Intake::new(&shared.home, sink, None, voice.clone(), options.dry_run, own.clone());
        self.thread("orders", move || Orders::new(intake, notify, voice, told).serve(&errands))
    }

    /// Tells the manager what became of orders.
    fn tell(&mut self, shared: &Shared) -> io::Result<()> {
        let (told, outcomes) = (Arc::clone(&shared.told), Arc::clone(&shared.outcomes));
        let (lane, stop) = (Arc::clone(&self.lane), Arc::clone(&self.stop));
        self.thread("outcomes", move || {
            let told = told.lock().unwrap_or_else(PoisonError::into_inner);
            while !stop.load(Ordering::SeqCst) {
                match told.recv_timeout(TICK) {
                    Ok(Report::Received(order)) => lane.report(uplink::received(order)),
                    Ok(Report::Outcome(outcome)) => lane.report(outcomes.add(*outcome)),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })
    }

    /// Notes the spool's progress and writes the state file.
    fn upkeep(&mut self, status: Arc<Status>, every: Duration, mut levels: Option<Levels>) -> io::Result<()> {
        let (spool, stop, lane) = (Arc::clone(&self.spool), Arc::clone(&self.stop), Arc::clone(&self.lane));
        let (home, _, voice) = self.shared.clone();
        self.thread("upkeep", move || {
            let (mut noted, mut written) = (Duration::ZERO, None);
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(TICK);
                let now = SystemClock.boot();
                // Without a connection nobody could be told, and nothing is sent whose lateness would say anything.
                if let Some(levels) = levels.as_mut().filter(|_| status.standing() == Standing::Connected) {
                    let waiting = spool.head().saturating_sub(status.position().max(spool.done()));
                    if let Some(event) = levels.look(waiting, now) {
                        lane.urge(event);
                    }
                }
                if now.saturating_sub(noted) >= NOTE {
                    noted = now;
                    if let Err(error) = spool.note() {
                        voice.warning(&format!("the spool's place cannot be noted: {error}"));
                    }
                }
                let due = written.is_none_or(|at| now.saturating_sub(at) >= every);
                if due && !every.is_zero() {
                    written = Some(now);
                    let waiting = spool.head().saturating_sub(spool.done());
                    if let Err(error) = status.write(&home, waiting) {
                        voice.debug(|| format!("the state file cannot be written: {error}"));
                    }
                }
            }
        })
    }

    fn collect(
        &mut self,
        options: &Options,
        shared: &Shared,
        read: &Read,
        feed: Feed,
    ) -> Result<(), FrontError> {
        let (events, collected) = queue::bounded(COLLECTED, Event::weight);
        let (taken, spool) = (Arc::clone(&feed.taken), Arc::clone(&feed.spool));
        let work = move || feed.collected(&collected);
        self.feeder = Some(std::thread::Builder::new().name("spool".into()).spawn(work)?);
        let voice = shared.voice.clone();
        let setup = tld_collect::Setup {
            home: shared.home.clone(),
            state: shared.home.join(POSITIONS),
            clock: Arc::new(SystemClock),
            journal_directory: options.journal_directory.clone(),
            log: Arc::new(move |line: &str| voice.warning(line)),
        };
        let settled = Arc::new(move |count| settled(&taken, &spool, count));
        let files = &read.settings.localfiles;
        self.collector = Some(Collector::start_behind(files, setup, events, settled)?);
        Ok(())
    }

    /// Whether the manager has pushed another configuration that is to be used.
    pub(super) fn wants_reload(&self) -> bool {
        let mut wanted = false;
        for notice in self.notices.try_iter() {
            wanted |= notice == Notice::Configuration && self.auto_restart;
        }
        wanted
    }

    /// Ends all parts: what gives before what takes. With `quiet`, for other ones to take their place at once.
    pub(super) fn stop(mut self, quiet: bool) {
        self.quiet.store(quiet, Ordering::SeqCst);
        let (home, numbers, voice) = self.shared.clone();
        if let Some(collector) = self.collector.take()
            && let Err(error) = collector.stop()
        {
            voice.error(&format!("the positions in the logs were not saved, lines may come again: {error}"));
        }
        if let Some(feeder) = self.feeder.take() {
            let _ = feeder.join();
        }
        self.stop.store(true, Ordering::SeqCst);
        self.lane.nudge();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let flight = serde_json::to_vec(&self.lane.flight()).unwrap_or_default();
        let noted = self
            .spool
            .sync()
            .and_then(|()| self.spool.note())
            .and_then(|()| durable::replace(&home.join(FLIGHT), &flight, 0o640));
        if let Err(error) = noted {
            voice.warning(&format!("the spool's place cannot be noted, events may come again: {error}"));
        }
        if let Err(error) = numbers.lock().unwrap_or_else(PoisonError::into_inner).store() {
            voice.warning(&error.to_string());
        }
    }
}

/// Answers orders on a host that takes none; what is in force from before goes on.
fn refuse(errands: &Receiver<Errand>, sink: Option<&dyn Sink>, voice: &Voice, told: impl Fn(Outcome)) {
    for errand in errands {
        match (errand, sink) {
            (Errand::Order(_, ticket), _) => {
                voice.info("(1350): active response is disabled; an order was not taken");
                if let Some(ticket) = ticket {
                    told(disabled(&ticket));
                }
            }
            (Errand::Confirmed(order, kind), Some(sink)) => sink.confirm(order, kind),
            (Errand::Cancel(order), Some(sink)) => sink.withdraw(order),
            _ => {}
        }
    }
}

/// Waits until so many collected events are on the disk; false if the spool takes none for too long.
fn settled(taken: &AtomicU64, spool: &Spool, count: u64) -> bool {
    let end = Deadline::after(SETTLES);
    while taken.load(Ordering::SeqCst) < count {
        if end.passed() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    spool.sync().is_ok()
}

/// What was on its way when the last process stopped. It counts once: after a crash it would be of another time.
fn flight(home: &std::path::Path, spool: &Spool) -> Flight {
    let path = home.join(FLIGHT);
    let stored = durable::read_bounded(&path, FLIGHT_LIMIT).ok();
    let _ = std::fs::remove_file(&path);
    let stored = stored.and_then(|text| serde_json::from_slice::<Flight>(&text).ok());
    let fits = stored.filter(|flight| {
        flight.first == spool.done() && flight.pairs.iter().all(|(_, number)| *number < spool.head())
    });
    fits.unwrap_or_else(|| Flight { first: spool.done(), ..Flight::default() })
}
