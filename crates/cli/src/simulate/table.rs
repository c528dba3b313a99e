//! A summary for people: what was read, which rules spoke, whom the responses would have hit, and when.
//! Invariant: nothing from a log or a rule file reaches the terminal as anything but text.

use std::fmt::Write as _;

use super::ledger::Kind;
use super::summary::{MostPart, RefusalPart, ResponsesPart, Summary};
use crate::logtest::printable;
use crate::paint::Paint;

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) paint: Paint,
    /// Columns of the terminal; none = as long as it takes.
    pub(super) columns: Option<usize>,
    /// Rows of each table; 0 = all.
    pub(super) rows: usize,
    /// The terminal shows more than ASCII.
    pub(super) blocks: bool,
}

/// The whole text.
pub(super) fn text(summary: &Summary, look: Look) -> String {
    let mut out = String::new();
    head(&mut out, summary, look);
    alerts(&mut out, summary, look);
    responses(&mut out, summary, look);
    refusals(&mut out, summary, look);
    chart(&mut out, summary, look);
    notes(&mut out, summary, look);
    out
}

fn head(out: &mut String, summary: &Summary, look: Look) {
    let paint = look.paint;
    let files = match summary.files.as_slice() {
        [] => String::new(),
        [one] => printable(one),
        [one, more @ ..] => format!("{} and {} more", printable(one), more.len()),
    };
    let title = if summary.interrupted { "Simulation, stopped before the end:" } else { "Simulation of" };
    line(out, &format!("{} {files}", paint.strong(title)));
    let ruleset = &summary.ruleset;
    let whose =
        ruleset.home.as_ref().map_or_else(|| "shipped".into(), |home| format!("of `{}`", printable(home)));
    line(
        out,
        &format!(
            "  ruleset   {whose}: {}, {}, {}",
            number(ruleset.rules, "rule"),
            number(ruleset.decoders, "decoder"),
            number(ruleset.responses, "response")
        ),
    );
    let time = &summary.time;
    if let (Some(first), Some(last)) = (&time.first, &time.last) {
        let by = if time.by == "log" { "by the log's own time" } else { "by time of arrival" };
        line(out, &format!("  time      {} to {}, {by}", short(first), short(last)));
    }
    let input = &summary.input;
    line(out, &format!("  read      {} lines, {}", grouped(input.lines), size(input.bytes)));
    let cost = &summary.cost;
    line(
        out,
        &format!(
            "  took      {} of processor, {} on the clock, {}, {} of memory",
            seconds(cost.cpu_seconds),
            seconds(cost.wall_seconds),
            number(cost.threads, "thread"),
            size(cost.peak_memory_bytes)
        ),
    );
    line(
        out,
        &format!("  speed     {} lines per second of processor", grouped(cost.lines_per_cpu_second as u64)),
    );
}

fn alerts(out: &mut String, summary: &Summary, look: Look) {
    let alerts = &summary.alerts;
    let title = format!("Alerts: {} by {}", grouped(alerts.total), number(alerts.rules.len(), "rule"));
    title_line(out, look, &title);
    if alerts.rules.is_empty() {
        return;
    }
    let mut table = Table::new(&[(">", "LEVEL"), ("<", "RULE"), (">", "ALERTS"), ("<", "DESCRIPTION")]);
    for rule in &alerts.rules {
        table.row(vec![
            rule.level.to_string(),
            rule.id.to_string(),
            grouped(rule.count),
            printable(&rule.description),
        ]);
    }
    table.write(out, look);
}

fn responses(out: &mut String, summary: &Summary, look: Look) {
    let responses = &summary.responses;
    if summary.ruleset.responses == 0 {
        title_line(out, look, "Responses: none is configured");
        let text = "name rules in an <active-response> of ossec.conf and try it with `--home DIR` or `--config FILE`";
        line(out, &wrapped(text, look));
        return;
    }
    let title = format!(
        "Responses: {} would have run, on {}{}",
        grouped(responses.began),
        number(responses.targets.len(), "target"),
        at_once(&responses.most_at_once, ", most at once ")
    );
    title_line(out, look, &title);
    if responses.by_response.len() > 1 {
        by_response(out, responses, look);
    }
    if responses.targets.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        ("<", "RESPONSE"),
        ("<", "ON"),
        (">", "TIMES"),
        ("<", "RULE"),
        ("<", "FIRST"),
        ("<", "LAST"),
        (">", "LONGEST"),
        (">", "EXTENDED"),
    ]);
    let whole = spans_years(summary);
    for one in &responses.targets {
        let on = one.target.as_deref().map_or_else(|| "-".into(), printable);
        let on = if one.endpoint.is_empty() { on } else { format!("{on} at {}", one.endpoint) };
        let longest = if one.longest_seconds == 0 { "-".into() } else { span(one.longest_seconds) };
        table.row(vec![
            printable(&one.response),
            on,
            grouped(one.times),
            one.rule.to_string(),
            within(&one.first, whole),
            if one.times == 1 { String::new() } else { within(&one.last, whole) },
            if one.escalated > 0 { format!("{longest} *") } else { longest },
            grouped(one.extended),
        ]);
    }
    table.write(out, look);
    if responses.escalated > 0 {
        line(out, "  * longer than configured, for a repeated offender");
    }
}

fn by_response(out: &mut String, responses: &ResponsesPart, look: Look) {
    let mut table = Table::new(&[
        ("<", "RESPONSE"),
        (">", "LASTS"),
        (">", "RUNS"),
        (">", "EXTENDED"),
        (">", "REFUSED"),
        (">", "MOST AT ONCE"),
    ]);
    for one in &responses.by_response {
        let lasts = if one.timeout_seconds == 0 { "-".into() } else { span(one.timeout_seconds) };
        table.row(vec![
            printable(&one.response),
            lasts,
            grouped(one.began),
            grouped(one.extended),
            grouped(one.refused),
            grouped(one.most_at_once.count as u64),
        ]);
    }
    table.write(out, Look { rows: 0, ..look });
    line(out, "");
}

fn refusals(out: &mut String, summary: &Summary, look: Look) {
    let refusals = &summary.responses.refusals;
    if refusals.is_empty() {
        return;
    }
    let total: u64 = refusals.iter().map(|one| one.times).sum();
    title_line(out, look, &format!("Refused: {} would not have run", grouped(total)));
    let mut table = Table::new(&[
        ("<", "RESPONSE"),
        ("<", "ON"),
        (">", "TIMES"),
        ("<", "FIRST"),
        ("<", "LAST"),
        ("<", "WHY"),
    ]);
    let whole = spans_years(summary);
    for one in refusals {
        table.row(vec![
            printable(&one.response),
            one.target.as_deref().map_or_else(|| "-".into(), printable),
            grouped(one.times),
            within(&one.first, whole),
            if one.times == 1 { String::new() } else { within(&one.last, whole) },
            printable(why(one)),
        ]);
    }
    table.write(out, look);
    if refusals.iter().any(|one| one.kind == Kind::Contested) {
        line(out, "  contested: <contested>first</contested> or last in the response acts anyway");
    }
}

/// The reason without the advice that stands once below the table.
fn why(refusal: &RefusalPart) -> &str {
    match refusal.kind {
        Kind::Contested => refusal.reason.split(';').next().unwrap_or(&refusal.reason),
        _ => &refusal.reason,
    }
}

fn chart(out: &mut String, summary: &Summary, look: Look) {
    let rows = &summary.over_time.rows;
    if rows.len() < 2 {
        return;
    }
    title_line(
        out,
        look,
        &format!("Over time, {} a row", span(summary.over_time.row_seconds.unsigned_abs())),
    );
    let most = rows.iter().map(|row| row.counts.alerts).max().unwrap_or(0).max(1);
    let width = |of: fn(&super::timeline::Counts) -> u64, least: usize| {
        rows.iter().map(|row| grouped(of(&row.counts)).len()).max().unwrap_or(0).max(least)
    };
    let (events, alerts) = (width(|counts| counts.events, 6), width(|counts| counts.alerts, 6));
    let ran = width(|counts| counts.responses, 9);
    let beside = 2 + 19 + 2 + events + 2 + alerts + 2 + ran + 2;
    let bar = look.columns.unwrap_or(100).saturating_sub(beside + 1).clamp(10, 60);
    let header = format!(
        "  {:<19}  {:>events$}  {:<bar$}  {:>alerts$}  {:>ran$}",
        "FROM", "EVENTS", "", "ALERTS", "RESPONSES"
    );
    line(out, &look.paint.dim(header.trim_end()));
    for row in rows {
        let counts = row.counts;
        let filled = bar_text(counts.alerts, most, bar, look.blocks);
        let gap = " ".repeat(bar - filled.chars().count());
        let responses = format!("{:>ran$}", grouped(counts.responses));
        let responses = if counts.responses > 0 { look.paint.act(&responses) } else { responses };
        line(
            out,
            &format!(
                "  {}  {:>events$}  {}{gap}  {:>alerts$}  {responses}",
                short(&row.start),
                grouped(counts.events),
                look.paint.warn(&filled),
                grouped(counts.alerts),
            ),
        );
    }
}

/// A bar of up to `width` characters; whatever is not nothing shows at least a trace.
fn bar_text(value: u64, most: u64, width: usize, blocks: bool) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if value == 0 {
        return String::new();
    }
    let eighths = ((value as f64 / most as f64) * (width * 8) as f64).round().max(1.0) as usize;
    let eighths = eighths.min(width * 8);
    if blocks { "█".repeat(eighths / 8) + EIGHTHS[eighths % 8] } else { "#".repeat(eighths.div_ceil(8)) }
}

fn notes(out: &mut String, summary: &Summary, look: Look) {
    let mut notes = Vec::new();
    let input = &summary.input;
    let mut counted = |count: u64, text: &str| {
        if count > 0 {
            notes.push(format!("{} {text}", grouped(count)));
        }
    };
    counted(input.unstamped, "lines had no time of their own and count for that of the line before");
    counted(
        input.backwards,
        "lines are more than a minute older than one before them: is the order of the files right?",
    );
    counted(input.cut, "lines were longer than an event may be and were cut");
    counted(summary.alerts.unwritten, "alerts are below log_alert_level: no file would show them");
    counted(summary.responses.unlisted, "targets and refusals are counted but not listed");
    counted(
        summary.responses.extended,
        "orders found their target blocked already; a real block would have kept most of those lines from being written",
    );
    if summary.ruleset.responses > 0 {
        notes.push(
            "a replay does not know the addresses, gateways and administrators of the live host, which are protected there".into(),
        );
    }
    if notes.is_empty() && summary.problems.is_empty() {
        return;
    }
    title_line(out, look, "Notes");
    for note in notes {
        line(out, &wrapped(&note, look));
    }
    for problem in &summary.problems {
        let text = format!("{}: {}", printable(&problem.file), printable(&problem.message));
        line(out, &format!("  {} {text}", look.paint.bad("not read to its end:")));
    }
}

struct Table<'h> {
    heads: &'h [(&'static str, &'static str)],
    rows: Vec<Vec<String>>,
}

impl<'h> Table<'h> {
    fn new(heads: &'h [(&'static str, &'static str)]) -> Self {
        Self { heads, rows: Vec::new() }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Writes the head and the first rows. The last column takes what is left of the line.
    fn write(&self, out: &mut String, look: Look) {
        let shown = if look.rows == 0 { self.rows.len() } else { self.rows.len().min(look.rows) };
        let rows = &self.rows[..shown];
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                cells.chain([self.heads[column].1.len()]).max().unwrap_or(0)
            })
            .collect();
        let cells = |cells: Vec<&str>| {
            let mut text = String::from(" ");
            for ((cell, width), (side, _)) in cells.iter().zip(&widths).zip(self.heads) {
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (left, right) = if *side == ">" { (gap.as_str(), "") } else { ("", gap.as_str()) };
                let _ = write!(text, " {left}{cell}{right} ");
            }
            cut(text.trim_end(), look)
        };
        line(out, &look.paint.dim(&cells(self.heads.iter().map(|(_, name)| *name).collect())));
        for row in rows {
            line(out, &cells(row.iter().map(String::as_str).collect()));
        }
        let left = self.rows.len() - shown;
        if left > 0 {
            let text = format!("  and {} more; `--rows 0` shows all", grouped(left as u64));
            line(out, &look.paint.dim(&text));
        }
    }
}

/// A line of a table is one line of the terminal.
fn cut(text: &str, look: Look) -> String {
    match look.columns {
        Some(columns) if text.chars().count() > columns => {
            let mark = if look.blocks { "…" } else { ">" };
            text.chars().take(columns.saturating_sub(1)).collect::<String>() + mark
        }
        _ => text.to_owned(),
    }
}

fn title_line(out: &mut String, look: Look, text: &str) {
    line(out, "");
    line(out, &look.paint.strong(text));
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn at_once(most: &MostPart, lead: &str) -> String {
    match &most.at {
        Some(at) => format!("{lead}{} ({})", grouped(most.count as u64), short(at)),
        None => String::new(),
    }
}

/// `2026-11-22T20:50:00.000+0000` without zone and fraction.
fn short(stamp: &str) -> String {
    stamp.get(..19).unwrap_or(stamp).replace('T', " ")
}

/// The same without the year where all of them are of one.
fn within(stamp: &str, whole: bool) -> String {
    let text = short(stamp);
    if whole { text } else { text.get(5..).unwrap_or_default().to_owned() }
}

fn spans_years(summary: &Summary) -> bool {
    let year = |stamp: &Option<String>| stamp.as_deref().and_then(|text| text.get(..4).map(str::to_owned));
    year(&summary.time.first) != year(&summary.time.last)
}

/// Breaks a text between words, so that no terminal breaks it within one.
fn wrapped(text: &str, look: Look) -> String {
    let most = look.columns.unwrap_or(usize::MAX).max(20);
    let mut out = String::from(" ");
    let mut used = 1;
    for word in text.split(' ') {
        if used + 1 + word.chars().count() > most && used > 4 {
            out.push_str("\n   ");
            used = 3;
        }
        out.push(' ');
        out.push_str(word);
        used += 1 + word.chars().count();
    }
    out
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 rule`, `2 rules`.
fn number(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count as u64), if count == 1 { "" } else { "s" })
}

/// Bytes in a unit that fits.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{} s", grouped(seconds.round() as u64)) }
}

/// Seconds in the largest unit that leaves no rest.
pub(super) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "min")];
    let fits = UNITS.iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [7, 600, 3_600, 5_400, 86_400, 604_800].map(span),
            ["7 s", "10 min", "1 h", "90 min", "1 d", "1 w"]
        );
        assert_eq!(
            [5, 20_300, 20_300_000, 2_030_000_000].map(size),
            ["5 B", "20.3 kB", "20.3 MB", "2.03 GB"]
        );
    }

    #[test]
    fn a_bar_is_never_longer_than_its_place_and_shows_the_smallest_number() {
        assert_eq!(bar_text(100, 100, 10, true), "█".repeat(10));
        assert_eq!(bar_text(1, 1_000_000, 10, true), "▏");
        assert_eq!((bar_text(0, 9, 10, true), bar_text(5, 10, 10, false)), (String::new(), "#####".into()));
        for value in 0..=64 {
            assert!(bar_text(value, 64, 7, true).chars().count() <= 7);
        }
    }

    #[test]
    fn notes_are_broken_between_words() {
        let look = Look { paint: Paint::none(), columns: Some(20), rows: 2, blocks: false };
        let text = wrapped("one two three four five six seven", look);
        assert_eq!(text, "  one two three four\n    five six seven");
        assert_eq!(wrapped(&"x".repeat(30), look), format!("  {}", "x".repeat(30)));
    }

    #[test]
    fn a_table_fits_the_terminal_and_tells_what_it_leaves_out() {
        let mut table = Table::new(&[(">", "N"), ("<", "TEXT")]);
        for n in 0..5 {
            table.row(vec![n.to_string(), "x".repeat(50)]);
        }
        let mut out = String::new();
        table.write(&mut out, Look { paint: Paint::none(), columns: Some(20), rows: 2, blocks: false });
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], format!("  0  {}>", "x".repeat(14)));
        assert_eq!(lines[3], "  and 3 more; `--rows 0` shows all");
    }
}
