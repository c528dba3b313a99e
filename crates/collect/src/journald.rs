//! The systemd journal, through a supervised `journalctl`.
//!
//! Invariant: the cursor that is kept belongs to an entry whose message the channel has taken (or that is filtered
//! out), so a restart loses nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tld_config::LocalFile;
use tld_pattern::{CompileError, Expression};
use tld_sys::child::{Limits, Spec};
use tld_sys::durable;

use crate::export::{Entry, Parser};
use crate::outlet::{Closed, Outlet};
use crate::process::pump;
use crate::reader::Cursor;
use crate::source::Filter;

const PROGRAMS: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A child that lived so long was healthy.
const HEALTHY: Duration = Duration::from_secs(60);
/// With `only-future-events`, entries older than this at our start are passed over.
const RESTART: Duration = Duration::from_secs(600);
const FOREVER: Duration = Duration::from_secs(u64::MAX / 4);

fn machine_id() -> Option<String> {
    let bytes = durable::read_bounded(Path::new("/etc/machine-id"), 128).ok()?;
    let text = String::from_utf8(bytes).ok()?.trim().to_owned();
    (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

struct FieldFilter {
    field: String,
    expression: Expression,
    ignore_if_missing: bool,
}

impl FieldFilter {
    fn holds(&self, entry: &Entry) -> bool {
        entry.field(&self.field).map_or(self.ignore_if_missing, |value| self.expression.is_match(value))
    }
}

/// All journald blocks as one.
pub(crate) struct Journal {
    /// Blocks are alternatives, the filters of one must all hold.
    blocks: Vec<Vec<FieldFilter>>,
    filter: Filter,
    only_future: bool,
    directory: Option<PathBuf>,
    cursor: Cursor,
    log: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Journal {
    /// Merges the blocks; none if there are none.
    pub(crate) fn new(
        blocks: &[&LocalFile],
        directory: Option<PathBuf>,
        cursor: Cursor,
        log: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> Result<Option<Self>, CompileError> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(None) };
        let mut filters = Vec::new();
        for block in blocks.iter().filter(|block| !block.filters.is_empty()) {
            let made = block.filters.iter().map(|filter| {
                let expression = Expression::compile(filter.expression.kind(), filter.expression.pattern())?;
                let ignore_if_missing = filter.ignore_if_missing;
                Ok(FieldFilter { field: filter.field.clone(), expression, ignore_if_missing })
            });
            filters.push(made.collect::<Result<Vec<_>, CompileError>>()?);
        }
        let (filter, only_future) = (Filter::new(first)?, last.only_future_events);
        Ok(Some(Self { blocks: filters, filter, only_future, directory, cursor, log }))
    }

    /// Follows the journal until the collector stops.
    pub(crate) fn run(&self, outlet: &Outlet) {
        let location: Arc<[u8]> = b"journald"[..].into();
        let started = outlet.now();
        let mut pause = FIRST_PAUSE;
        let mut complained = false;
        let mut again = false;
        while !outlet.stopping() {
            let Some(program) = PROGRAMS.iter().map(Path::new).find(|path| path.exists()) else {
                (self.log)("the journal is not read: there is no `journalctl` on this system");
                return;
            };
            let begun = outlet.boot();
            let spec = self.spec(program, again.then_some(started.secs()));
            let oldest = started.secs().saturating_sub(i64::try_from(RESTART.as_secs()).unwrap_or(0));
            let mut parser = Parser::default();
            let mut entries = Vec::new();
            let ended = pump(&spec, FOREVER, outlet, |chunk| {
                parser.feed(chunk, &mut entries);
                entries.drain(..).try_for_each(|entry| self.take(&entry, oldest, &location, outlet))
            });
            if outlet.stopping() {
                return;
            }
            if outlet.boot().saturating_sub(begun) >= HEALTHY {
                pause = FIRST_PAUSE;
                complained = false;
            }
            if !complained {
                let why = match ended {
                    Ok(ended) => format!("{} {}", ended.how, ended.stderr),
                    Err(error) => error.to_string(),
                };
                (self.log)(&format!("`journalctl` ended, it is started again: {}", why.trim()));
                complained = true;
            }
            again = true;
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    fn spec<'a>(&self, program: &'a Path, since: Option<i64>) -> Spec<'a> {
        let mut spec = Spec::new(program);
        // It maps the journal's files.
        spec.limits = Limits { memory_bytes: None, ..Limits::default() };
        // `--follow` means this boot only, whatever `--boot` says; `--merge` alone lifts that, so that entries between
        // the cursor and a reboot are not left out.
        spec.args =
            ["--follow", "--merge", "--output=export", "--no-pager", "--quiet"].map(Into::into).to_vec();
        let cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (cursor, since) {
            (Some(cursor), _) => {
                spec.args.extend(["--no-tail".into(), format!("--after-cursor={cursor}").into()]);
            }
            (None, Some(since)) => spec.args.extend(["--no-tail".into(), format!("--since=@{since}").into()]),
            (None, None) => spec.args.push("--lines=0".into()),
        }
        if let Some(directory) = &self.directory {
            let mut argument = std::ffi::OsString::from("--directory=");
            argument.push(directory);
            spec.args.push(argument);
        } else if let Some(machine) = machine_id() {
            // Merging would bring in the journals of other machines that are collected here.
            spec.args.push(format!("_MACHINE_ID={machine}").into());
        }
        spec
    }

    fn take(&self, entry: &Entry, oldest: i64, location: &Arc<[u8]>, outlet: &Outlet) -> Result<(), Closed> {
        let wanted = self.blocks.is_empty()
            || self.blocks.iter().any(|block| block.iter().all(|filter| filter.holds(entry)));
        let stale = self.only_future && entry.seconds().is_some_and(|at| at < oldest);
        if wanted
            && !stale
            && let Some(message) = entry.message()
            && self.filter.passes(&message, outlet)
        {
            self.filter.send(location, message, outlet)?;
        }
        if let Some(cursor) = entry.cursor() {
            *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor.to_owned());
        }
        Ok(())
    }
}
