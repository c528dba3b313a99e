//! The result of a replay as data: printed for people by [`super::table`], written as JSON for programs.
//! `docs/simulate.md` describes the JSON. Invariant: members are only ever added; a change of meaning raises `format`.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tld_config::Response;
use tld_model::{RuleId, Target, Timestamp, Zone};
use tld_rules::Ruleset;

use super::ledger::{Kind, Ledger, Times};
use super::reader::{Met, Problem};
use super::timeline::{Counts, Timeline};

/// Everything that is told.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Of this JSON.
    pub(super) format: u32,
    pub(super) files: Vec<String>,
    pub(super) ruleset: RulesetPart,
    pub(super) time: TimePart,
    pub(super) input: InputPart,
    pub(super) cost: CostPart,
    pub(super) alerts: AlertsPart,
    pub(super) responses: ResponsesPart,
    pub(super) over_time: OverTime,
    pub(super) problems: Vec<Problem>,
    /// Stopped by hand before the end.
    pub(super) interrupted: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct RulesetPart {
    /// None = shipped.
    pub(super) home: Option<String>,
    pub(super) rules: usize,
    pub(super) decoders: usize,
    pub(super) responses: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct TimePart {
    /// `log` or `arrival`.
    pub(super) by: &'static str,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct InputPart {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) events: u64,
    pub(super) empty: u64,
    pub(super) cut: u64,
    pub(super) unstamped: u64,
    pub(super) backwards: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CostPart {
    pub(super) threads: usize,
    pub(super) wall_seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) lines_per_cpu_second: f64,
    pub(super) peak_memory_bytes: u64,
    pub(super) remembered_events: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct AlertsPart {
    pub(super) total: u64,
    /// Alerts below `log_alert_level`, which no file shows.
    pub(super) unwritten: u64,
    /// Highest level first, then the most frequent.
    pub(super) rules: Vec<RulePart>,
}

#[derive(Debug, Serialize)]
pub(super) struct RulePart {
    pub(super) id: RuleId,
    pub(super) level: u8,
    pub(super) description: String,
    pub(super) count: u64,
    pub(super) first: String,
    pub(super) last: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct ResponsesPart {
    pub(super) began: u64,
    pub(super) extended: u64,
    pub(super) escalated: u64,
    pub(super) refused: u64,
    pub(super) most_at_once: MostPart,
    pub(super) by_response: Vec<ResponsePart>,
    pub(super) targets: Vec<TargetPart>,
    pub(super) refusals: Vec<RefusalPart>,
    pub(super) unlisted: u64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct MostPart {
    pub(super) count: usize,
    pub(super) at: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ResponsePart {
    pub(super) response: String,
    pub(super) timeout_seconds: u64,
    pub(super) began: u64,
    pub(super) extended: u64,
    pub(super) escalated: u64,
    pub(super) refused: u64,
    pub(super) most_at_once: MostPart,
}

#[derive(Debug, Serialize)]
pub(super) struct TargetPart {
    pub(super) response: String,
    /// None where the response takes none.
    pub(super) target: Option<String>,
    /// Where; empty = on the host that decides.
    pub(super) endpoint: String,
    pub(super) times: u64,
    pub(super) extended: u64,
    pub(super) escalated: u64,
    pub(super) first: String,
    pub(super) last: String,
    /// 0 = it does not end by itself.
    pub(super) longest_seconds: u64,
    pub(super) rule: RuleId,
}

#[derive(Debug, Serialize)]
pub(super) struct RefusalPart {
    pub(super) response: String,
    pub(super) kind: Kind,
    pub(super) target: Option<String>,
    pub(super) reason: String,
    pub(super) times: u64,
    pub(super) first: String,
    pub(super) last: String,
}

#[derive(Debug, Serialize)]
pub(super) struct OverTime {
    pub(super) row_seconds: i64,
    pub(super) rows: Vec<RowPart>,
}

#[derive(Debug, Serialize)]
pub(super) struct RowPart {
    pub(super) start: String,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// Rows of the chart.
const CHART: usize = 24;

/// Local time as in alerts.
pub(super) fn stamp(zone: &Zone, at: Timestamp) -> String {
    zone.local(at).alert_stamp().to_string()
}

pub(super) fn input(met: &Met) -> InputPart {
    InputPart {
        lines: met.lines,
        bytes: met.bytes,
        events: met.lines - met.empty,
        empty: met.empty,
        cut: met.cut,
        unstamped: met.unstamped,
        backwards: met.backwards,
    }
}

pub(super) fn cost(threads: usize, wall: Duration, cpu: Duration, lines: u64, remembered: usize) -> CostPart {
    let seconds = cpu.as_secs_f64();
    CostPart {
        threads,
        wall_seconds: wall.as_secs_f64(),
        cpu_seconds: seconds,
        lines_per_cpu_second: if seconds > 0.0 { (lines as f64 / seconds).round() } else { 0.0 },
        peak_memory_bytes: tld_sys::usage::memory().peak,
        remembered_events: remembered,
    }
}

pub(super) fn alerts(
    counts: &HashMap<RuleId, Times>,
    unwritten: u64,
    ruleset: &Ruleset,
    zone: &Zone,
) -> AlertsPart {
    let rule = |(id, times): (&RuleId, &Times)| {
        let info = ruleset.rule(*id);
        RulePart {
            id: *id,
            level: info.map_or(0, |info| info.level),
            description: info
                .map(|info| String::from_utf8_lossy(&info.description).into_owned())
                .unwrap_or_default(),
            count: times.count,
            first: stamp(zone, times.first),
            last: stamp(zone, times.last),
        }
    };
    let mut rules: Vec<_> = counts.iter().map(rule).collect();
    rules.sort_by(|a, b| b.level.cmp(&a.level).then(b.count.cmp(&a.count)).then(a.id.cmp(&b.id)));
    AlertsPart { total: counts.values().map(|times| times.count).sum(), unwritten, rules }
}

pub(super) fn responses(ledger: &Ledger, responses: &[Response], zone: &Zone) -> ResponsesPart {
    let most = |most: tld_respond::rehearsal::Most| MostPart {
        count: most.count,
        at: (most.count > 0).then(|| stamp(zone, most.at)),
    };
    let sum = |of: fn(&super::ledger::Totals) -> u64| ledger.totals.iter().map(of).sum();
    let by_response = responses.iter().zip(&ledger.totals).map(|(response, totals)| ResponsePart {
        response: response.name.clone(),
        timeout_seconds: response.timeout_secs,
        began: totals.began,
        extended: totals.extended,
        escalated: totals.escalated,
        refused: totals.refused,
        most_at_once: most(totals.most),
    });
    ResponsesPart {
        began: sum(|totals| totals.began),
        extended: sum(|totals| totals.extended),
        escalated: sum(|totals| totals.escalated),
        refused: sum(|totals| totals.refused),
        most_at_once: most(ledger.most()),
        by_response: by_response.collect(),
        targets: targets(ledger, responses, zone),
        refusals: refusals(ledger, responses, zone),
        unlisted: ledger.unlisted,
    }
}

fn targets(ledger: &Ledger, responses: &[Response], zone: &Zone) -> Vec<TargetPart> {
    let mut acted: Vec<_> = ledger.acted.iter().collect();
    // Whoever came back most often first, then in order of time.
    acted.sort_by(|(a, one), (b, other)| {
        let often = other.times.count.cmp(&one.times.count);
        often.then(one.times.first.cmp(&other.times.first)).then_with(|| place(a).cmp(&place(b)))
    });
    let part =
        |((response, endpoint, on), acted): (&(usize, String, Target), &super::ledger::Acted)| TargetPart {
            response: name(responses, *response),
            target: target(on),
            endpoint: endpoint.clone(),
            times: acted.times.count,
            extended: acted.extended,
            escalated: acted.escalated,
            first: stamp(zone, acted.times.first),
            last: stamp(zone, acted.times.last),
            longest_seconds: acted.longest,
            rule: acted.rule,
        };
    acted.into_iter().map(part).collect()
}

fn refusals(ledger: &Ledger, responses: &[Response], zone: &Zone) -> Vec<RefusalPart> {
    let mut refused: Vec<_> = ledger.refused.iter().collect();
    refused.sort_by(|(a, one), (b, other)| {
        let often = other.count.cmp(&one.count);
        let place = || (a.response, a.kind, &a.why, a.target.to_string());
        a.kind
            .cmp(&b.kind)
            .then(often)
            .then_with(|| place().cmp(&(b.response, b.kind, &b.why, b.target.to_string())))
    });
    let part = |(refusal, times): (&super::ledger::Refusal, &Times)| RefusalPart {
        response: name(responses, refusal.response),
        kind: refusal.kind,
        target: target(&refusal.target),
        reason: refusal.why.clone(),
        times: times.count,
        first: stamp(zone, times.first),
        last: stamp(zone, times.last),
    };
    refused.into_iter().map(part).collect()
}

fn place(key: &(usize, String, Target)) -> (usize, &str, String) {
    (key.0, &key.1, key.2.to_string())
}

fn name(responses: &[Response], number: usize) -> String {
    responses.get(number).map(|response| response.name.clone()).unwrap_or_default()
}

fn target(target: &Target) -> Option<String> {
    (*target != Target::None).then(|| target.to_string())
}

pub(super) fn over_time(timeline: &mut Timeline, zone: &Zone) -> OverTime {
    let (row_seconds, rows) = timeline.rows(CHART);
    let rows = rows.iter().map(|row| RowPart { start: stamp(zone, row.start), counts: row.counts });
    OverTime { row_seconds, rows: rows.collect() }
}
