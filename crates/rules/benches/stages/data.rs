//! Logs and rulesets of the stage bench, each made once.

use std::sync::{Arc, OnceLock};

use tld_model::{Event, Timestamp};
use tld_rules::Ruleset;

use crate::common::{self, END, Sources};

/// Lines of each log.
const LINES: usize = 2_000;
/// Lines that they are taken out of.
const GENERATED: usize = 20_000;

/// A log with the rules that judge it.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) events: Vec<Event>,
    pub(crate) ruleset: Arc<Ruleset>,
}

/// Every log with every ruleset; empty where the shared data or python3 is missing.
pub(crate) fn sets() -> &'static [Set] {
    static SETS: OnceLock<Vec<Set>> = OnceLock::new();
    SETS.get_or_init(|| made().unwrap_or_default())
}

fn made() -> Option<Vec<Set>> {
    let shared = common::shared()?;
    let folder = tempfile::tempdir().unwrap();
    let read = |path| std::fs::read(path).unwrap();
    let logs = [
        ("sshd", read(common::sshd(&shared, folder.path(), GENERATED, 1_000)?)),
        ("web", read(common::generated(&shared, folder.path(), "gen_weblog.py", GENERATED, &[])?)),
        ("cases", common::cases(&shared)),
    ];
    let rulesets = [("existing", Sources::existing(&shared)), ("shipped", Sources::shipped())];
    let rulesets = rulesets.map(|(name, sources)| (name, sources.load()));
    let sets = logs.iter().flat_map(|(log, text)| {
        rulesets.iter().map(move |(name, ruleset)| {
            let (name, ruleset) = (format!("{log} {name}"), Arc::clone(ruleset));
            Set { name, events: events(text), ruleset }
        })
    });
    Some(sets.collect())
}

/// Lines from all over the log, a tenth of a second apart.
fn events(text: &[u8]) -> Vec<Event> {
    let lines: Vec<&[u8]> = common::lines(text).collect();
    let step = (lines.len() / LINES).max(1);
    let chosen = lines.iter().step_by(step).take(LINES).enumerate();
    chosen
        .map(|(n, line)| Event::local("/var/log/auth.log", *line, Timestamp::from_secs(END + n as i64 / 10)))
        .collect()
}
