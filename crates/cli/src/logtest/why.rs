//! Why a line became what it became, for somebody who was just woken up: what matched, what nearly did, the first condition
//! that failed with its place and text, and everything that keeps an alert silent.
//!
//! Rules are shown where they are near the result: the way to the winner, its neighbours before it, its children. A search
//! that counted too few events is always near. `-v` shows the rest.

use std::collections::HashSet;
use std::fmt::Write;

use tld_model::RuleId;
use tld_rules::decoder::{DecoderId, DecoderTest};
use tld_rules::{Analyzer, Failure, RuleInfo, RuleStep, Ruleset, Searched, StaticField, Trace, Verdict};

use super::passage::Passages;
use super::printable;
use crate::paint::Paint;

/// Failed rules of one kind that are shown without `-v`.
const SHOWN: usize = 8;

/// One judged event and what an explanation of it needs.
pub(super) struct View<'v> {
    pub(super) ruleset: &'v Ruleset,
    pub(super) passages: &'v Passages,
    pub(super) verdict: &'v Verdict<'v>,
    pub(super) trace: &'v Trace,
    pub(super) paint: Paint,
    /// Leave nothing out.
    pub(super) everything: bool,
}

impl View<'_> {
    /// The whole story.
    pub(super) fn explanation(&self) -> String {
        let mut out = format!("\n{}\n", self.paint.strong("**Why:"));
        self.decoders(&mut out);
        self.rules(&mut out);
        self.alert(&mut out);
        if self.verdict.ended_searches > 0 {
            let _ = writeln!(
                out,
                "\t{} searches of PCRE2 expressions were ended because this line makes them too costly: what they look \
                 for was taken as absent",
                self.verdict.ended_searches
            );
        }
        out
    }

    /// The answer for one rule.
    pub(super) fn why_not(&self, rule: RuleId) -> String {
        let mut out = format!("\n{}\n", self.paint.strong(&format!("**Why not rule {rule}:")));
        self.ask(&mut out, rule, &mut HashSet::new());
        out
    }

    fn place(&self, file: &str, line: u32) -> String {
        self.paint.dim(&format!("{file}:{line}"))
    }

    /// `what  file:line`, and the text that stands there.
    fn item(&self, out: &mut String, depth: usize, what: &str, file: &str, line: u32) {
        let indent = "  ".repeat(depth);
        let _ = writeln!(out, "\t{indent}{what}  {}", self.place(file, line));
        let text = self.passages.line(file, line);
        if !text.is_empty() {
            let _ = writeln!(out, "\t{indent}    {}", self.paint.dim(&text));
        }
    }

    fn left_out(&self, out: &mut String, depth: usize, count: usize, what: &str) {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            let note = format!("… {count} {what}{plural} tried before: no match (-v shows all)");
            let _ = writeln!(out, "\t{}{}", "  ".repeat(depth), self.paint.dim(&note));
        }
    }

    fn decoders(&self, out: &mut String) {
        let _ = writeln!(out, "\t{}", self.paint.strong("Decoder"));
        let steps = &self.trace.decoders;
        let decoders = self.ruleset.decoders();
        let chosen = steps.iter().position(|step| step.what == DecoderTest::Selected);
        let built_in = self.verdict.decoder().filter(|_| chosen.is_none());
        if let Some(name) = built_in {
            let _ = writeln!(out, "\t  {} is built in for this kind of event", printable(name));
            return;
        }
        // Of those before the chosen one nothing need be known; without one, a program_name that fits says something.
        let telling = |at: usize| {
            let step = &steps[at];
            let named = || steps[..at].iter().any(|s| s.decoder == step.decoder && s.matched);
            self.everything
                || match chosen {
                    Some(chosen) => at > chosen || step.decoder == steps[chosen].decoder,
                    None => step.matched || named(),
                }
        };
        let skipped: HashSet<DecoderId> =
            (0..steps.len()).filter(|at| !telling(*at)).map(|at| steps[at].decoder).collect();
        if chosen.is_none() {
            let subject = match &self.verdict.decoded.program_name {
                Some(name) => format!("program_name '{}'", String::from_utf8_lossy(name)),
                None => "a line without program_name".to_owned(),
            };
            let _ = writeln!(out, "\t  {} {}", self.paint.warn("none fits"), printable(&subject));
        }
        self.left_out(out, 1, skipped.len(), "decoder");
        for (at, step) in steps.iter().enumerate().filter(|(at, _)| telling(*at)) {
            let info = decoders.info(step.decoder);
            let element = match step.what {
                DecoderTest::ProgramName => "program_name",
                DecoderTest::Prematch => "prematch",
                DecoderTest::Regex => "regex",
                DecoderTest::Plugin => "plugin_decoder",
                DecoderTest::Selected if steps[..at].iter().any(|s| s.decoder == step.decoder) => continue,
                DecoderTest::Selected => "decoder",
            };
            let depth = if info.parent.is_some() { 2 } else { 1 };
            let result = match (step.what, step.matched) {
                (DecoderTest::Selected, _) => self.paint.good("taken"),
                (_, true) => self.paint.good(&format!("{element} matches")),
                (_, false) => self.paint.warn(&format!("{element} does not match")),
            };
            let line = self.passages.element(&info.file, info.line, element).unwrap_or(info.line);
            self.item(out, depth, &format!("{}: {result}", printable(&info.own_name)), &info.file, line);
        }
    }

    /// The step at which the winner matched.
    fn won_at(&self) -> Option<usize> {
        let winner = self.verdict.rule.as_ref()?.id;
        self.trace.rules.iter().rposition(|step| step.rule == winner && step.failed.is_none())
    }

    /// The steps from a root to the winner's.
    fn way(&self, won: usize) -> Vec<usize> {
        let steps = &self.trace.rules;
        let mut way = vec![won];
        for at in (0..won).rev() {
            if way.last().is_some_and(|last| steps[at].depth + 1 == steps[*last].depth) {
                way.push(at);
            }
        }
        way.reverse();
        way
    }

    fn rules(&self, out: &mut String) {
        let _ = writeln!(out, "\t{}", self.paint.strong("Rules"));
        let steps = &self.trace.rules;
        if self.everything {
            let way = self.won_at().map(|won| self.way(won)).unwrap_or_default();
            steps.iter().enumerate().for_each(|(at, step)| match &step.failed {
                None => self.matched(out, step, way.contains(&at)),
                Some(failure) => self.failed(out, step, failure),
            });
            return;
        }
        let Some(won) = self.won_at() else {
            if let Some(rule) = &self.verdict.rule {
                let _ =
                    writeln!(out, "\t  a forwarded alert names rule {} itself; no rule was tried", rule.id);
                return;
            }
            let note = format!("none matches, of {} tried", steps.len());
            let _ = writeln!(out, "\t  {}", self.paint.warn(&note));
            // What some rule took in was of its kind, so what failed below it is near.
            let near = |at: &usize| steps[*at].depth > 0 || steps[*at].failed.is_none();
            self.failures(out, (0..steps.len()).filter(near), 0);
            return;
        };
        let way = self.way(won);
        let siblings = way.iter().rev().nth(1).map_or(0, |parent| parent + 1)..won;
        for &at in &way {
            if at == won {
                let before = siblings.clone().filter(|at| steps[*at].depth > 0);
                self.failures(out, before, steps[won].depth);
            }
            self.matched(out, &steps[at], true);
        }
        self.failures(out, won + 1..steps.len(), steps[won].depth + 1);
        let told = steps.len() - siblings.start.min(steps.len());
        let others = steps.len().saturating_sub(told + way.len().saturating_sub(1));
        self.left_out(out, 1, others, "other rule");
    }

    /// A rule that matched; on the way to the winner its `noalert` changed nothing.
    fn matched(&self, out: &mut String, step: &RuleStep, on_the_way: bool) {
        let info = self.ruleset.rule(step.rule);
        let winner = self.verdict.rule.as_ref().map(|winner| winner.id);
        let state = match info {
            Some(info) if winner == Some(step.rule) => {
                self.paint.good(&format!("wins, level {}", info.level))
            }
            Some(info) if info.noalert && !on_the_way => self
                .paint
                .warn("matches, but noalert: it only hands events to its children, and none took this one"),
            _ => self.paint.good("matches"),
        };
        self.item(out, step.depth + 1, &format!("{}: {state}", step.rule), &step.file, step.line);
    }

    /// Failed rules, those that counted too few events first of all; matched ones among them passed the event on.
    fn failures(&self, out: &mut String, places: impl Iterator<Item = usize>, depth: usize) {
        let steps = &self.trace.rules;
        let mut told: HashSet<RuleId> = HashSet::new();
        let places: Vec<usize> = places.filter(|at| told.insert(steps[*at].rule)).collect();
        let close = |at: &usize| match &steps[*at].failed {
            Some(failure) => failure.searched.is_some(),
            None => true,
        };
        let mut room = SHOWN.saturating_sub(places.iter().filter(|at| close(at)).count());
        let mut skipped = 0;
        for at in places {
            let step = &steps[at];
            if !close(&at) {
                // Another decoder's rules are never near.
                let foreign = step.failed.as_ref().is_some_and(|failure| failure.condition == "decoded_as");
                if room == 0 || (foreign && step.depth > 0) {
                    skipped += 1;
                    continue;
                }
                room -= 1;
            }
            match &step.failed {
                None => self.matched(out, step, false),
                Some(failure) => self.failed(out, step, failure),
            }
        }
        self.left_out(out, depth + 1, skipped, "more rule");
    }

    fn failed(&self, out: &mut String, step: &RuleStep, failure: &Failure) {
        let reason = self.paint.warn(&self.reason(step.rule, failure));
        self.item(out, step.depth + 1, &format!("{}: {reason}", step.rule), &step.file, failure.line);
    }

    fn reason(&self, rule: RuleId, failure: &Failure) -> String {
        if let (Some(searched), Some(info)) = (&failure.searched, self.ruleset.rule(rule)) {
            return self.too_few(info, searched);
        }
        match failure.condition {
            "decoded_as" => match self.verdict.decoder() {
                Some(name) => format!("decoded_as does not match, the decoder is '{}'", printable(name)),
                None => "decoded_as does not match, there is no decoder".to_owned(),
            },
            "if_fts" => "if_fts: not the first of its kind".to_owned(),
            "check_diff" => "check_diff: nothing differs from the line before".to_owned(),
            "time" | "weekday" => format!("{}: not at this moment", failure.condition),
            condition => match self.lacking(condition) {
                true => format!("{condition} does not match, the event has none"),
                false => format!("{condition} does not match"),
            },
        }
    }

    /// Whether a condition of this name looks at a field that the event does not have.
    fn lacking(&self, name: &str) -> bool {
        match (name, StaticField::from_name(name)) {
            ("program_name", _) => self.verdict.decoded.program_name.is_none(),
            (_, Some(field)) => self.verdict.decoded.field(field).is_none(),
            (_, None) => false,
        }
    }

    /// `needs 8 events in 120 s with the same srcip, has 3`
    fn too_few(&self, info: &RuleInfo, searched: &Searched) -> String {
        let Searched { needed, found, hidden, same, different } = searched;
        let mut text = format!("needs {needed} events in {} s", info.timeframe);
        for (word, names) in [("the same", same), ("different", different)] {
            if !names.is_empty() {
                let _ = write!(text, " with {word} {}", printable(&names.join(", ")));
            }
        }
        let _ = write!(text, ", has {found}");
        let absent: Vec<&str> = same.iter().map(String::as_str).filter(|name| self.absent(name)).collect();
        if !absent.is_empty() {
            let _ = write!(text, " (this event has no {})", printable(&absent.join(", ")));
        }
        if *hidden {
            let level = info.level;
            let _ = write!(text, "; older ones are used up by an alert of level {level} or more");
        }
        text
    }

    fn absent(&self, name: &str) -> bool {
        let event = &self.verdict.decoded;
        match StaticField::from_name(name) {
            Some(field) => event.field(field).is_none(),
            None => name != "location" && event.dynamic_field(name).is_none(),
        }
    }

    /// Whether the service would write an alert, and what keeps it from that.
    fn alert(&self, out: &mut String) {
        let _ = writeln!(out, "\t{}", self.paint.strong("Alert"));
        let mut line = |text: String| {
            let _ = writeln!(out, "\t  {text}");
        };
        let no = self.paint.warn("no:");
        let Some(winner) = &self.verdict.rule else {
            line(format!("{no} no rule won"));
            return;
        };
        let info = self.ruleset.rule(winner.id);
        let least = self.ruleset.options().log_alert_level;
        if let Some(rule) = self.trace.ignored {
            let length = info.and_then(|info| info.ignore).unwrap_or(0);
            line(format!(
                "{no} rule {rule} won less than {length} s ago and has ignore=\"{length}\"; the service would report its parent"
            ));
        } else if winner.level == 0 {
            line(format!(
                "{no} rule {} has level 0: it takes events out of sight, and they count for nothing",
                winner.id
            ));
        } else if winner.level < least {
            line(format!("{no} level {} is below log_alert_level, which is {least}", winner.level));
        } else if info.is_some_and(|info| !info.log) {
            line(format!(
                "{no} the service does not write alerts of rule {} (no_log); this tool does not look at that",
                winner.id
            ));
        } else {
            line(format!("{} level {}, log_alert_level is {least}", self.paint.good("yes:"), winner.level));
        }
        if info.is_some_and(|info| info.no_ar) {
            line(format!("rule {} forbids responses (no_ar)", winner.id));
        }
    }

    fn ask(&self, out: &mut String, rule: RuleId, asked: &mut HashSet<RuleId>) {
        let Some(info) = self.ruleset.rule(rule) else {
            let _ = writeln!(out, "\tthere is no rule {rule} in this ruleset");
            return;
        };
        if !asked.insert(rule) {
            return;
        }
        let depth = asked.len() - 1;
        let winner = self.verdict.rule.as_ref().map(|winner| winner.id);
        if winner == Some(rule) {
            self.item(out, depth, &format!("{rule}: {}", self.paint.good("it won")), &info.file, info.line);
            return;
        }
        let mut steps = self.trace.rules.iter().filter(|step| step.rule == rule);
        if let Some(step) = steps.clone().find(|step| step.failed.is_none()) {
            let by = winner
                .map_or_else(String::new, |winner| format!("; rule {winner} below it, or after it, won"));
            let kind = if info.noalert { "it matches, but has noalert" } else { "it matches" };
            self.item(out, depth, &format!("{rule}: {}{by}", self.paint.good(kind)), &step.file, step.line);
        } else if let Some((step, failure)) =
            steps.find_map(|step| step.failed.as_ref().map(|why| (step, why)))
        {
            let reason = self.paint.warn(&self.reason(rule, failure));
            self.item(out, depth, &format!("{rule}: {reason}"), &step.file, failure.line);
        } else {
            self.not_tried(out, info, asked);
        }
    }

    /// A rule is not tried when nothing above it matched, or when the search was over before its turn.
    fn not_tried(&self, out: &mut String, info: &RuleInfo, asked: &mut HashSet<RuleId>) {
        let depth = asked.len() - 1;
        let matches = |parent: &RuleId| {
            self.trace.rules.iter().any(|step| step.rule == *parent && step.failed.is_none())
        };
        let winner = self.verdict.rule.as_ref().map(|winner| winner.id);
        let reason = match winner {
            Some(winner) if info.parents.is_empty() || info.parents.iter().any(matches) => {
                format!("not tried: rule {winner} came first, or events of this kind do not reach it")
            }
            _ if info.parents.is_empty() => "not tried: it is for another kind of event".to_owned(),
            _ => "not tried, because of the rule above it:".to_owned(),
        };
        let what = format!("{}: {}", info.id, self.paint.warn(&reason));
        self.item(out, depth, &what, &info.file, info.line);
        if !info.parents.iter().any(matches) {
            info.parents.iter().take(SHOWN).for_each(|parent| self.ask(out, *parent, asked));
        }
    }
}

/// What stayed silent in the whole session.
pub(super) fn silences(analyzer: &Analyzer, paint: Paint) -> String {
    let mut out = String::new();
    for (rule, counts) in analyzer.suppressed() {
        let kinds = [
            (counts.level0, "taken by level 0"),
            (counts.ignored, "inside its ignore window"),
            (counts.noalert, "handed on by noalert and taken by no child"),
            (counts.marks, "not counted again because an alert had used the events up"),
        ];
        let kinds = kinds.iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<String> = kinds.map(|(count, kind)| format!("{count} {kind}")).collect();
        let _ = writeln!(out, "\trule {rule}: {}", kinds.join(", "));
    }
    if out.is_empty() {
        return out;
    }
    format!("\n{}\n{out}", paint.strong("**Events without an alert in this session:"))
}
