//! `internal_options.conf` and the local file that overrides it.
//!
//! Only options with an effect here are known; all others pass. Without the files the defaults hold.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use tld_xml::{Diagnostic, Severity, Source, Span};

use crate::load::read_file;
use crate::reader::{digits, short};
use crate::suggest;

const LIMIT: u64 = 1024 * 1024;

/// Name, default, least, most.
const KNOWN: &[(&str, u32, u32, u32)] = &[
    ("analysisd.default_timeframe", 360, 60, 3600),
    ("analysisd.decoder_order_size", 256, 32, 1024),
    ("analysisd.fts_list_size", 32, 12, 512),
    ("analysisd.fts_min_size_for_str", 14, 6, 128),
    ("analysisd.log_fw", 1, 0, 1),
    ("analysisd.min_rotate_interval", 600, 10, 86_400),
    ("analysisd.show_hidden_labels", 0, 0, 1),
    ("analysisd.label_cache_maxage", 10, 0, 60),
    ("analysisd.stats_maxdiff", 999_000, 10, 999_999),
    ("analysisd.stats_mindiff", 1250, 10, 999_999),
    ("analysisd.stats_percent_diff", 150, 5, 9999),
    ("logcollector.loop_timeout", 2, 1, 120),
    ("logcollector.max_lines", 10_000, 0, 1_000_000),
    ("logcollector.max_files", 1000, 1, 100_000),
    ("logcollector.vcheck_files", 64, 0, 1024),
    ("logcollector.queue_size", 1024, 128, 220_000),
    ("logcollector.remote_commands", 0, 0, 1),
    ("logcollector.exclude_files_interval", 86_400, 1, 172_800),
    ("execd.debug", 0, 0, 2),
    ("execd.request_timeout", 60, 1, 3600),
    ("execd.max_restart_lock", 600, 0, 3600),
    // Ours: bounds of one run of a script (seconds, megabytes, number), and of the log of responses.
    ("execd.script_timeout", 300, 1, 86_400),
    ("execd.script_key_timeout", 60, 1, 3600),
    ("execd.script_memory", 512, 0, 1_048_576),
    ("execd.script_processes", 64, 0, 65_536),
    ("execd.max_scripts", 64, 1, 4096),
    ("execd.log_size", 64, 0, 65_536),
    ("execd.log_daily", 0, 0, 1),
    ("execd.log_keep", 9, 1, 365),
    ("agent.remote_conf", 1, 0, 1),
    ("agent.recv_timeout", 60, 1, 600),
    ("agent.state_interval", 5, 0, 86_400),
    ("agent.warn_level", 90, 1, 100),
    ("agent.normal_level", 70, 0, 99),
    ("agent.tolerance", 15, 0, 600),
    ("agent.min_eps", 50, 1, 1000),
    ("remoted.shared_reload", 10, 1, 18_000),
    ("remoted.verify_msg_id", 0, 0, 1),
    ("remoted.merge_shared", 1, 0, 1),
    ("monitord.compress", 1, 0, 1),
    ("monitord.day_wait", 10, 0, 600),
    ("monitord.keep_log_days", 31, 0, 500),
];

/// Values of the known options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalOptions {
    values: HashMap<&'static str, u32>,
}

impl Default for InternalOptions {
    fn default() -> Self {
        Self { values: KNOWN.iter().map(|(name, default, ..)| (*name, *default)).collect() }
    }
}

impl InternalOptions {
    /// The value of an option such as `logcollector.max_lines`; none for one that is not known here.
    pub fn value(&self, name: &str) -> Option<u32> {
        self.values.get(name).copied()
    }

    /// Applies one file's text over what is there.
    pub fn apply(&mut self, source: &Source, diagnostics: &mut Vec<Diagnostic>) {
        let mut start = 0;
        for line in source.text.split_inclusive(|b| *b == b'\n') {
            let span = span(start, line.trim_ascii_end().len());
            start += line.len();
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') || diagnostics.len() > 100 {
                continue;
            }
            let Some((name, value)) = text.split_once('=') else {
                let error = Diagnostic::error(source, span, "line without `=`");
                diagnostics.push(error.with_help("write `component.name=value`"));
                continue;
            };
            let (name, value) = (name.trim(), value.trim());
            let Some((key, _, least, most)) = KNOWN.iter().find(|(known, ..)| *known == name) else {
                let names: Vec<&str> = KNOWN.iter().map(|(known, ..)| *known).collect();
                // Other programs' options are normal here; a slip in one of ours is not.
                if let Some(near) = slip(name, &names) {
                    let message = format!("unknown option `{}`, ignored", short(name));
                    let warning = Diagnostic::warning(source, span, message);
                    diagnostics.push(warning.with_help(format!("did you mean `{near}`?")));
                }
                continue;
            };
            let number = digits(value).and_then(|n| u32::try_from(n).ok());
            match number.filter(|n| (*least..=*most).contains(n)) {
                Some(number) => {
                    self.values.insert(key, number);
                }
                None => {
                    let message = format!("`{}` is not a valid value of `{key}`", short(value));
                    let error = Diagnostic::error(source, span, message).with_code(1235);
                    diagnostics.push(error.with_help(format!("a number from {least} to {most}")));
                }
            }
        }
    }
}

/// Reads `etc/internal_options.conf` and then `etc/local_internal_options.conf` below the home.
pub fn internal_options(home: &Path) -> (InternalOptions, Vec<Diagnostic>) {
    let mut options = InternalOptions::default();
    let mut diagnostics = Vec::new();
    for name in ["etc/internal_options.conf", "etc/local_internal_options.conf"] {
        match read_file(&home.join(name), LIMIT) {
            Ok(text) => options.apply(&Source::new(name, text), &mut diagnostics),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot be read: {error}");
                diagnostics.push(Diagnostic::bare(Severity::Error, name, message).with_code(1103));
            }
        }
    }
    (options, diagnostics)
}

/// A name one or two letters away from a known one.
fn slip<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let (component, rest) = name.split_once('.')?;
    let near = suggest::nearest(name, known)?;
    let same = near.split_once('.').is_some_and(|(c, r)| c == component && r.len().abs_diff(rest.len()) <= 1);
    same.then_some(near)
}

fn span(start: usize, length: usize) -> Span {
    let fit = |n| u32::try_from(n).unwrap_or(u32::MAX);
    Span { start: fit(start), end: fit(start + length) }
}
