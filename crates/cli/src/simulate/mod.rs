//! `threatlockdown simulate`: what would this ruleset and this policy have done with these logs?
//!
//! Lines pass the same analysis and the same policy as in the service; in place of an endpoint stands a rehearsal that only
//! thinks. Invariant: nothing is written, neither in a home nor elsewhere, and no response runs.

mod archive;
mod ledger;
mod progress;
mod reader;
mod series;
mod summary;
mod table;
mod tally;
mod timeline;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tld_model::{Agent, Event, QUEUE_LOCAL, Timestamp, Zone};
use tld_rules::Analyzer;
use tld_server::lanes::{self, Arrival, Lanes};
use tld_server::load::Prepared;
use tld_sys::clock::{Clock, SystemClock};
use tld_sys::signal::Signals;
use tld_xml::Severity;

use crate::check;
use crate::paint::Paint;
use progress::Progress;
use reader::{Reader, Stamped};
use summary::Summary;
use table::Look;
use tally::Tally;

const AFTER: &str = "\
Examples:
  threatlockdown simulate --log /var/log/auth.log*           by the shipped rules
  threatlockdown simulate --home /var/ossec --log /var/log/auth.log* /var/log/nginx/access.log*
  threatlockdown simulate --config ./ossec.conf --log old.log.gz --rows 0
  journalctl -o short-iso --since -30d | threatlockdown simulate --home /var/ossec --log -
  threatlockdown simulate --log auth.log --summary json | jq .responses.targets

Rotated files of one log are put in order, and several logs are read side by side by the time
of their lines. .gz and .zst are unpacked. Times without a zone are local: set TZ for logs of
another place. A home, also that of another product, is only read. No response runs.

Exit status: 0, or 1 when something could not be loaded or read to its end.";

/// Replay logs: which alerts and responses would they have caused?
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    /// Configuration and ruleset of this installation instead of the shipped ones
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// This configuration file instead of etc/ossec.conf of the home; without a home with the shipped ruleset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Logs to replay; `-` is standard input
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    log: Vec<PathBuf>,
    /// Where the lines are said to come from, instead of the path of their log
    #[arg(long, value_name = "TEXT")]
    location: Option<String>,
    /// Count by the time of reading instead of the log's own time
    #[arg(long)]
    arrival: bool,
    /// Threads that share the work; the result is the same. Without it as many as the processor has, up to four
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: Option<u16>,
    /// Form of the summary
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    summary: Form,
    /// Rows of each table; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Tables for people
    Text,
    /// One JSON object (docs/simulate.md)
    Json,
}

/// Events between two looks at the clock and at signals.
const STRIDE: u64 = 4_096;

/// Replays, then tells.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let signals = signals(options);
    let Some(prepared) = load(options)? else { return Ok(ExitCode::FAILURE) };
    let zone = Zone::system();
    let now = Timestamp::from_nanos(SystemClock.wall_nanos());
    let series = series::arrange(&options.log, options.location.as_deref(), &zone, now)?;
    ensure!(!series.is_empty(), "no log was named");
    let files: Vec<String> =
        series.iter().flat_map(|one| &one.parts).map(|part| reader::shown(&part.path)).collect();
    let size = series.iter().flat_map(|one| &one.parts).map(|part| part.size).sum();
    let threads = options.threads.map_or_else(lanes::usual, usize::from);
    let analyzer = analyzer(&prepared, &zone);
    let replay = Replay {
        options,
        lanes: Lanes::new(analyzer, Tally::new(&prepared), threads),
        reader: Reader::new(series, &zone, now, !options.arrival),
        progress: Progress::new(size),
        threads,
        agent: Arc::default(),
        prepared: &prepared,
        zone,
        signals,
    };
    let summary = replay.run(files);
    tell(&summary, options)?;
    let whole = summary.problems.is_empty() && !summary.interrupted;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A replay that is stopped by hand tells what it has so far. Standard input may keep us waiting, where a signal must end us.
fn signals(options: &Options) -> Option<Signals> {
    if options.log.iter().any(|path| path.as_os_str() == series::STDIN) {
        return None;
    }
    tld_sys::signal::termination().ok()
}

/// Reads ruleset and policy and shows problems: errors always, warnings as a number.
fn load(options: &Options) -> Result<Option<Prepared>> {
    let reading = match &options.home {
        Some(home) => tld_server::load::load(home, options.config.as_deref())
            .with_context(|| format!("cannot replay with home `{}`", home.display()))?,
        None => tld_server::load::shipped(options.config.as_deref())?,
    };
    let (errors, others): (Vec<_>, Vec<_>) =
        reading.diagnostics.into_iter().partition(|one| one.severity == Severity::Error);
    let warnings = others.iter().filter(|one| one.severity == Severity::Warning).count();
    if warnings > 0 && options.summary == Form::Text {
        let text = format!("{warnings} warnings about this configuration; `threatlockdown check` shows them");
        eprintln!("{}", Paint::stderr().dim(&text));
    }
    check::show(&errors);
    if reading.prepared.is_none() {
        eprintln!("nothing was replayed; mend the errors above and try again");
    }
    Ok(reading.prepared)
}

fn analyzer(prepared: &Prepared, zone: &Zone) -> Analyzer {
    let settings = tld_rules::Settings {
        manager_name: tld_sys::host::name(),
        short_host: tld_sys::host::short_name(),
        zone: zone.clone(),
        // Nobody reads the record of alerts.log here.
        with_plain: false,
        ..tld_rules::Settings::default()
    };
    Analyzer::new(Arc::clone(&prepared.ruleset), settings)
}

struct Replay<'o> {
    options: &'o Options,
    prepared: &'o Prepared,
    lanes: Lanes<Tally>,
    reader: Reader,
    progress: Progress,
    threads: usize,
    agent: Arc<Agent>,
    zone: Zone,
    signals: Option<Signals>,
}

impl Replay<'_> {
    fn run(mut self, files: Vec<String>) -> Summary {
        let (wall, cpu) = (SystemClock.boot(), tld_sys::usage::processor());
        let mut interrupted = false;
        let mut lines = 0_u64;
        let Self { options, lanes, reader, progress, signals, agent, .. } = &mut self;
        let next = |spare| {
            if interrupted {
                return None;
            }
            let line = reader.next(spare)?;
            lines += 1;
            if lines.is_multiple_of(STRIDE) {
                progress.show(reader.consumed(), lines);
                let signal = signals.as_ref().and_then(|signals| signals.take().ok().flatten());
                interrupted = signal.is_some();
            }
            Some(arrival(line, options.arrival, agent))
        };
        lanes.drain(next);
        let Self { options, prepared, lanes, mut reader, mut progress, threads, zone, .. } = self;
        let (mut tally, remembered) = lanes.finish(|analyzer, tally| {
            tally.ledger.finish();
            (std::mem::replace(tally, Tally::new(prepared)), analyzer.memory().0)
        });
        progress.clear();
        let wall = SystemClock.boot().saturating_sub(wall);
        let cpu = tld_sys::usage::processor().saturating_sub(cpu);
        let span = tally.timeline.span();
        let input = summary::input(&reader.met);
        Summary {
            format: 1,
            files,
            ruleset: summary::RulesetPart {
                home: options.home.as_ref().map(|home| home.display().to_string()),
                rules: prepared.ruleset.counts().rules,
                decoders: prepared.ruleset.decoders().len(),
                responses: prepared.policy.responses().len(),
            },
            time: summary::TimePart {
                by: if options.arrival { "arrival" } else { "log" },
                first: span.map(|(first, _)| summary::stamp(&zone, first)),
                last: span.map(|(_, last)| summary::stamp(&zone, last)),
            },
            cost: summary::cost(threads, wall, cpu, input.lines, remembered),
            input,
            alerts: summary::alerts(&tally.rules, tally.unwritten, &prepared.ruleset, &zone),
            responses: summary::responses(&tally.ledger, prepared.policy.responses(), &zone),
            over_time: summary::over_time(&mut tally.timeline, &zone),
            problems: std::mem::take(&mut reader.met.problems),
            interrupted,
        }
    }
}

fn arrival(line: Stamped, by_arrival: bool, agent: &Arc<Agent>) -> Arrival {
    let received = if by_arrival { Timestamp::from_nanos(SystemClock.wall_nanos()) } else { line.at };
    let event = Event {
        queue: QUEUE_LOCAL,
        location: line.location,
        agent: Arc::clone(agent),
        text: line.text,
        received,
    };
    Arrival { event, at: received }
}

fn tell(summary: &Summary, options: &Options) -> Result<()> {
    let text = match options.summary {
        Form::Json => serde_json::to_string_pretty(summary)? + "\n",
        Form::Text => {
            let paint = Paint::stdout();
            let columns = tld_sys::terminal::columns();
            table::text(summary, Look { paint, columns, rows: options.rows, blocks: blocks() })
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A pager that was closed has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the summary"),
    }
}

/// Whether the locale shows characters beyond ASCII.
fn blocks() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    set.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}
