//! A `<localfile>` block made ready for reading: what is read, what becomes of a line.
//!
//! Invariant: a [`Source`] has been checked, its formats can be made for every path that it names.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tld_config::{LocalFile, MultilineEdge};
use tld_model::{LocalTime, Zone};
use tld_pattern::{CompileError, Expression};
use tld_sys::clock::Clock;

use crate::format::{
    Audit, Count, Delimited, Djb, Format, FormatError, Json, MatchAt, Mysql, Newlines, Plain, SnortFull,
    Stamped,
};
use crate::glob;
use crate::outlet::{Closed, Outlet};
use crate::shape::Shape;

/// Why a block is not read.
#[derive(Debug, Error)]
pub(crate) enum SourceError {
    /// No path.
    #[error("`localfile` names no file")]
    NoLocation,
    /// An expression that compiled once does not any more.
    #[error("`localfile`: {0}")]
    Expression(#[from] CompileError),
    /// No reader for it.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// The expressions of a block are compiled anew: they are shared between threads, and a block can be read twice.
fn again(expression: &Expression) -> Result<Arc<Expression>, CompileError> {
    Expression::compile(expression.kind(), expression.pattern()).map(Arc::new)
}

/// `ignore`, `restrict` and `out_format` of one block.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    ignore: Vec<Arc<Expression>>,
    restrict: Vec<Arc<Expression>>,
    shape: Option<Shape>,
}

impl Filter {
    pub(crate) fn new(block: &LocalFile) -> Result<Self, CompileError> {
        Ok(Self {
            ignore: block.ignore.iter().map(again).collect::<Result<_, _>>()?,
            restrict: block.restrict.iter().map(again).collect::<Result<_, _>>()?,
            shape: Shape::of(&block.out_format),
        })
    }

    /// Sends a text that has passed, in the form that the block wants.
    pub(crate) fn send(&self, location: &Arc<[u8]>, text: Vec<u8>, outlet: &Outlet) -> Result<(), Closed> {
        match &self.shape {
            Some(shape) => outlet.send(location, shape.make(location, &text, outlet.now())),
            None => outlet.send(location, text),
        }
    }

    /// Whether a text is passed on; counts those that are not.
    pub(crate) fn passes(&self, text: &[u8], outlet: &Outlet) -> bool {
        let passes = !self.ignore.iter().any(|expression| expression.is_match(text))
            && self.restrict.iter().all(|expression| expression.is_match(text));
        if !passes {
            outlet.counters.filtered.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }
}

/// How a location names files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// One path.
    Path(PathBuf),
    /// All that match.
    Wild(PathBuf),
    /// One path that changes with the calendar.
    Dated(String),
}

/// A block that reads files.
pub(crate) struct Source {
    pub(crate) location: Location,
    pub(crate) filter: Filter,
    /// `ignore` and `restrict` look at the line instead of the message.
    pub(crate) filters_lines: bool,
    pub(crate) only_future: bool,
    pub(crate) max_size: u64,
    pub(crate) age: Option<Duration>,
    pub(crate) skip_binaries: bool,
    exclude: Vec<String>,
    kind: Kind,
    labels: Vec<(String, String)>,
    clock: Arc<dyn Clock>,
    zone: Zone,
}

enum Kind {
    Plain,
    Json,
    Count(usize),
    Delimited(Arc<Expression>, MatchAt, Newlines, Duration),
    Audit,
    Postgresql,
    Mssql,
    SnortFull,
    Mysql,
    Djb,
}

impl Source {
    /// Checks a block that names files.
    pub(crate) fn new(
        block: &LocalFile,
        home: &Path,
        clock: Arc<dyn Clock>,
        zone: Zone,
    ) -> Result<Self, SourceError> {
        let text = block.location.as_deref().unwrap_or_default();
        if text.is_empty() {
            return Err(SourceError::NoLocation);
        }
        let path = home.join(text);
        let location = if glob::is_wild(text.as_bytes()) {
            Location::Wild(path)
        } else if text.contains('%') {
            Location::Dated(path.to_string_lossy().into_owned())
        } else {
            Location::Path(path)
        };
        let kind = kind(block)?;
        Ok(Self {
            filter: Filter::new(block)?,
            filters_lines: matches!(kind, Kind::Json),
            only_future: block.only_future_events,
            max_size: block.max_size,
            age: block.age,
            skip_binaries: block.ignore_binaries,
            exclude: block.exclude.clone(),
            labels: block.labels.clone(),
            location,
            kind,
            clock,
            zone,
        })
    }

    /// The reader of one file's lines.
    pub(crate) fn format(&self, path: &Path) -> Box<dyn Format> {
        match &self.kind {
            Kind::Plain => Box::new(Plain),
            Kind::Json => Box::new(Json::new(self.labels.clone())),
            Kind::Count(lines) => Box::new(Count::new(*lines)),
            Kind::Delimited(expression, at, newlines, timeout) => {
                let expression = Arc::clone(expression);
                let matcher = Box::new(move |text: &[u8]| expression.is_match(text));
                Box::new(Delimited::new(matcher, *at, *newlines, *timeout))
            }
            Kind::Audit => Box::new(Audit::default()),
            Kind::Postgresql => Box::new(Stamped::postgresql()),
            Kind::Mssql => Box::new(Stamped::mssql()),
            Kind::SnortFull => Box::new(SnortFull::default()),
            Kind::Mysql => Box::new(Mysql::default()),
            Kind::Djb => {
                let name = path.parent().and_then(Path::file_name).map(|name| name.as_bytes().to_vec());
                Box::new(Djb::new(
                    name.unwrap_or_default(),
                    header(Arc::clone(&self.clock), self.zone.clone()),
                ))
            }
        }
    }

    /// The paths that the location stands for now, and directories to watch for others.
    pub(crate) fn paths(&self, now: &LocalTime, limit: usize) -> glob::Expansion {
        let one = |path: PathBuf| glob::Expansion { paths: vec![path], directories: Vec::new() };
        match &self.location {
            Location::Path(path) => one(path.clone()),
            Location::Dated(pattern) => one(PathBuf::from(glob::strftime(pattern, now))),
            Location::Wild(pattern) => {
                let mut found = glob::expand(pattern, limit);
                let exclude: Vec<String> =
                    self.exclude.iter().map(|text| glob::strftime(text, now)).collect();
                found.paths.retain(|path| {
                    !exclude.iter().any(|pattern| glob::matches_path(Path::new(pattern), path))
                });
                found
            }
        }
    }
}

fn header(clock: Arc<dyn Clock>, zone: Zone) -> Box<dyn Fn() -> String + Send> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host = host.split('.').next().unwrap_or_default().to_owned();
    Box::new(move || {
        let now = zone.local(tld_model::Timestamp::from_nanos(clock.wall_nanos()));
        format!("{}{host}", glob::strftime("%b %d %H:%M:%S ", &now))
    })
}

fn kind(block: &LocalFile) -> Result<Kind, FormatError> {
    let format = block.log_format.as_str();
    Ok(match format {
        "syslog" | "generic" | "snort-fast" | "apache" | "iis" | "squid" | "syslog-pipe" => Kind::Plain,
        "json" => Kind::Json,
        "audit" => Kind::Audit,
        "postgresql_log" => Kind::Postgresql,
        "mssql_log" => Kind::Mssql,
        "mysql_log" => Kind::Mysql,
        "snort-full" => Kind::SnortFull,
        "djb-multilog" => {
            let path = block.location.as_deref().unwrap_or_default();
            if !path.ends_with("/current") || path.matches('/').count() < 2 {
                return Err(FormatError::DjbPath(path.to_owned()));
            }
            Kind::Djb
        }
        "multi-line-regex" => {
            let rule = block.multiline.as_ref().ok_or(FormatError::NoExpression)?;
            let at = match rule.edge {
                MultilineEdge::Start => MatchAt::Start,
                MultilineEdge::End => MatchAt::End,
                MultilineEdge::All => MatchAt::All,
            };
            let newlines = match rule.replace.map(str::as_bytes) {
                None => Newlines::Keep,
                Some([]) => Newlines::Remove,
                Some([with, ..]) => Newlines::Replace(*with),
            };
            let expression = again(&rule.expression).map_err(|_error| FormatError::NoExpression)?;
            Kind::Delimited(expression, at, newlines, rule.timeout)
        }
        _ => match format.strip_prefix("multi-line:") {
            Some(count) => match count.trim().parse() {
                Ok(lines @ 1..=1000) => Kind::Count(lines),
                _ => return Err(FormatError::LineCount(format.to_owned())),
            },
            None => return Err(FormatError::Unsupported(format.to_owned())),
        },
    })
}
