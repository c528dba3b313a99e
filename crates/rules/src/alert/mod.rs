//! What an alert looks like: the JSON object and the plain record (analysis-output 1 and 2). Pure formatting; which
//! alerts there are is decided by the engine.
//! Invariant: both renderings leave a gap for the id, which is only known when the alert is written.

mod compliance;
mod constant;
mod custom;
mod data;
mod description;
mod fields;
mod groups;
mod json;
#[expect(clippy::type_complexity, reason = "generated: one table, used in one place")]
mod mitre_table;
mod page;
mod place;
mod renderer;
mod stamp;

use tld_model::Frame;

pub(crate) use constant::{Constant, decoders};
pub use custom::{FormError, PlainForm};
pub(crate) use description::expand;
pub(crate) use mitre_table::TECHNIQUES;
pub(crate) use renderer::Renderer;

use crate::analyzer::Settings;
use crate::rule::Rule;
use crate::rule::condition::Moment;
use crate::{Decoded, StaticField, Texts};
use page::Page;

/// Everything that an alert or an archived event shows.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) event: &'a Decoded<'a>,
    /// The event's decoder is the one of configuration assessments.
    pub(crate) assesses: bool,
    /// The member `decoder` of each.
    pub(crate) decoders: &'a Texts,
    pub(crate) rule: Option<Chosen<'a>>,
    pub(crate) last_events: &'a Texts,
    pub(crate) previous_log: Option<&'a [u8]>,
    pub(crate) moment: &'a Moment<'a>,
}

/// The rule of an alert.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) description: &'a [u8],
    pub(crate) fired: u32,
}

/// Which of the slightly different objects is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Alert,
    /// `full_log` is always there.
    Archive,
    /// Level 0 is there.
    Logtest,
}

impl Picture<'_> {
    /// The JSON object around the gap for its id.
    pub(crate) fn json(&self, shape: Shape, with: &mut Renderer) -> Frame {
        let event = self.event;
        with.begin(self.moment);
        if let Some(chosen) = &self.rule {
            self.rule(chosen, shape, &mut with.page);
        }
        let place = with.place(&event.event.agent, &event.location, self.settings);
        with.page.append(&with.places[place].head);
        let gap = with.page.len();
        with.page.append(&with.cluster);
        if has_previous(self.last_events) {
            previous(self.last_events, &mut with.page);
        }
        let hidden = shape != Shape::Archive && self.rule.is_some_and(|chosen| chosen.rule.no_full_log);
        if !hidden {
            with.page.quoted(b",\"full_log\":\"", &event.full_log);
        }
        let host = header_host(&event.full_log);
        let early = event.program_name.is_some() || event.timestamp.is_some();
        if early {
            self.predecoder(host, &mut with.page);
        }
        match event.decoder.and_then(|id| self.decoders.get(usize::from(id.0))) {
            Some(decoder) => with.page.append(decoder),
            None => with.page.append(b",\"decoder\":{}"),
        }
        if let Some(previous) = self.previous_log {
            with.page.quoted(b",\"previous_log\":\"", previous);
        }
        fields::write(event, &mut with.names, &mut with.page);
        if !early && host.is_some() {
            self.predecoder(host, &mut with.page);
        }
        with.page.append(&with.places[place].tail);
        with.frame(gap)
    }

    fn rule(&self, chosen: &Chosen<'_>, shape: Shape, page: &mut Page) {
        let constant = &chosen.rule.constant;
        let [before, middle, end] = constant.pieces();
        if !constant.is_fixed() {
            page.append(before);
            page.escaped(chosen.description);
        }
        page.append(middle);
        if !chosen.rule.no_counter {
            page.decimal(chosen.fired);
        }
        page.append(end);
        if self.assesses || constant.rootcheck {
            compliance::write(self.event, self.assesses, &chosen.rule.info, page);
        }
        if shape == Shape::Logtest && chosen.rule.info.level == 0 {
            page.append(b",\"level\":0");
        }
        page.push(b'}');
    }

    fn predecoder(&self, host: Option<&[u8]>, page: &mut Page) {
        page.append(b",\"predecoder\":");
        let start = page.len();
        if let Some(program) = &self.event.program_name {
            page.quoted(b",\"program_name\":\"", program);
        }
        if let Some(timestamp) = &self.event.timestamp {
            page.quoted(b",\"timestamp\":\"", timestamp);
        }
        if let Some(host) = host {
            page.quoted(b",\"hostname\":\"", host);
        }
        page.set(start, b'{');
        page.push(b'}');
    }

    /// The record of alerts.log around the gap for its id.
    pub(crate) fn plain(&self, with: &mut Renderer) -> Frame {
        with.page.clear();
        if let Some(form) = &self.settings.plain_form {
            let gap = form.render(self, &mut with.page);
            return with.frame(gap);
        }
        let Some(chosen) = &self.rule else { return Frame::default() };
        let page = &mut with.page;
        page.append(HEAD);
        self.record(chosen, page);
        with.frame(HEAD.len())
    }

    /// Behind the id.
    fn record(&self, chosen: &Chosen<'_>, page: &mut Page) {
        let event = self.event;
        let info = &chosen.rule.info;
        page.append(if info.mail { b": mail  - " } else { b": - " });
        line(page, &[info.groups.as_bytes()]);
        match stamp::Plain::new(self.moment.local()) {
            Some(stamp) => page.append(stamp.text()),
            None => page.append(self.moment.local().plain_stamp().to_string().as_bytes()),
        }
        page.push(b' ');
        if !event.location.starts_with(b"(") {
            page.append(event.hostname().unwrap_or_default());
            page.append(b"->");
        }
        line(page, &[&event.location]);
        for (label, value) in &event.event.agent.labels {
            line(page, &[label.as_bytes(), b": ", value.as_bytes()]);
        }
        page.append(b"Rule: ");
        page.decimal(info.id.0);
        page.append(b" (level ");
        page.decimal(u32::from(info.level));
        line(page, &[b") -> '", chosen.description, b"'"]);
        let named: [(&[u8], StaticField); 5] = [
            (b"Src IP: ", StaticField::SrcIp),
            (b"Src Port: ", StaticField::SrcPort),
            (b"Dst IP: ", StaticField::DstIp),
            (b"Dst Port: ", StaticField::DstPort),
            (b"User: ", StaticField::DstUser),
        ];
        for (name, field) in named {
            if let Some(value) = event.field(field) {
                line(page, &[name, value]);
            }
        }
        line(page, &[&event.full_log]);
        for field in event.fields().filter(|field| !field.is_empty()) {
            line(page, &[field.object(), field.key(), b": ", field.value()]);
        }
        for last in self.last_events.iter() {
            line(page, &[last]);
        }
        page.push(b'\n');
    }
}

/// What a record begins with.
const HEAD: &[u8] = b"** Alert ";

#[cold]
#[inline(never)]
fn previous(last_events: &Texts, page: &mut Page) {
    page.append(b",\"previous_output\":\"");
    for (number, log) in last_events.iter().enumerate() {
        if number > 0 {
            page.append(b"\\n");
        }
        page.escaped(log);
    }
    page.push(b'"');
}

#[inline(never)]
fn line(page: &mut Page, parts: &[&[u8]]) {
    for part in parts {
        page.append(part);
    }
    page.push(b'\n');
}

/// The last events as one text; nothing unless there are two and the second is not empty.
pub(crate) fn previous_output(last_events: &Texts) -> Option<Vec<u8>> {
    has_previous(last_events).then(|| last_events.iter().collect::<Vec<_>>().join(&b'\n'))
}

fn has_previous(last_events: &Texts) -> bool {
    last_events.get(1).is_some_and(|second| !second.is_empty())
}

/// The member `data` as it is written, and by the plain form.
#[cfg(test)]
pub(crate) fn data_in_both_forms(event: &Decoded<'_>) -> [String; 2] {
    let (mut written, mut plain) = (Page::default(), Page::default());
    fields::write(event, &mut fields::Names::default(), &mut written);
    fields::through_tree(event, &mut plain);
    [written, plain].map(|page| page.written().escape_ascii().to_string())
}

/// The host of a classic header: three letters, day, time, then the next run without blanks. Independent of
/// pre-decoding, as the contract has it.
fn header_host(log: &[u8]) -> Option<&[u8]> {
    const SHAPE: &[u8; 16] = b"Aaa 9d dd:dd:dd ";
    let header = log.first_chunk::<16>().filter(|header| header[3] == b' ' && header[9] == b':')?;
    let fits = header.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'A' => byte.is_ascii_uppercase(),
        b'a' => byte.is_ascii_lowercase(),
        b'd' => byte.is_ascii_digit(),
        b'9' => matches!(byte, b' ' | b'0'..=b'3'),
        literal => byte == literal,
    });
    if !fits {
        return None;
    }
    let rest = &log[SHAPE.len()..];
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}
