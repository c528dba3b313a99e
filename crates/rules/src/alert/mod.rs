//! What an alert looks like: the JSON object and the plain record (analysis-output 1 and 2). Pure formatting; which
//! alerts there are is decided by the engine.
//! Invariant: both renderings leave a gap for the id, which is only known when the alert is written.

mod compliance;
mod custom;
mod data;
mod description;
mod groups;
mod json;
#[expect(clippy::type_complexity, reason = "generated: one table, used in one place")]
mod mitre_table;

use std::sync::Arc;

use tld_model::{Frame, LocalTime};

pub use custom::{FormError, PlainForm};
pub(crate) use description::expand;
pub(crate) use mitre_table::TECHNIQUES;

use crate::analyzer::Settings;
use crate::decoder::DecoderInfo;
use crate::rule::Rule;
use crate::{Decoded, StaticField, Texts};
use data::Tree;
use json::Object;

/// Everything that an alert or an archived event shows.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) event: &'a Decoded<'a>,
    pub(crate) decoder: Option<&'a DecoderInfo>,
    pub(crate) rule: Option<Chosen<'a>>,
    pub(crate) last_events: &'a Texts,
    pub(crate) previous_log: Option<&'a [u8]>,
    pub(crate) local: LocalTime,
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

/// Longest location behind an agent's wrapping.
const LOCATION_LIMIT: usize = 1022;

impl Picture<'_> {
    /// The JSON object around the gap for its id. `buffer` is only lent: rendering into memory that stays and copying
    /// two short pieces is cheaper than asking for a long one each time.
    pub(crate) fn json(&self, shape: Shape, buffer: &mut Vec<u8>) -> Frame {
        buffer.clear();
        let mut root = Object::open(buffer);
        alert_stamp(&self.local, root.named("timestamp"));
        if let Some(chosen) = self.rule {
            let compliance = compliance::of(self.event, self.decoder, &chosen.rule.info);
            chosen.write(shape, &compliance, root.named("rule"));
        }
        let agentless = self.agentless();
        if agentless.is_none() {
            self.agent(root.named("agent"));
        }
        let mut manager = Object::open(root.named("manager"));
        manager.text("name", self.settings.manager_name.as_bytes());
        manager.close();
        root.named("id").push(b'"');
        let gap = root.out.len();
        root.out.push(b'"');
        if let Some((name, node)) = &self.settings.cluster {
            let mut cluster = Object::open(root.named("cluster"));
            cluster.text("name", name.as_bytes());
            cluster.text("node", node.as_bytes());
            cluster.close();
        }
        if has_previous(self.last_events) {
            let out = root.named("previous_output");
            out.push(b'"');
            for (number, log) in self.last_events.iter().enumerate() {
                if number > 0 {
                    out.extend_from_slice(b"\\n");
                }
                json::escaped(log, out);
            }
            out.push(b'"');
        }
        let hidden = self.rule.is_some_and(|chosen| chosen.rule.no_full_log) && shape != Shape::Archive;
        if !hidden {
            root.text("full_log", &self.event.full_log);
        }
        self.decoded(&mut root);
        root.text("location", self.inner_location());
        if let Some([script, user, host]) = agentless {
            let mut agentless = Object::open(root.named("agentless"));
            agentless.text("script", script);
            agentless.text("user", user);
            agentless.text("host", host);
            agentless.close();
        }
        root.close();
        let (head, tail) = buffer.split_at(gap);
        Frame { head: head.to_vec(), tail: tail.to_vec() }
    }

    /// From `predecoder` to `data`.
    fn decoded(&self, root: &mut Object<'_>) {
        let event = self.event;
        let host = header_host(&event.full_log);
        let early = event.program_name.is_some() || event.timestamp.is_some();
        let predecoder = |root: &mut Object<'_>| {
            let mut object = Object::open(root.named("predecoder"));
            let members = [
                ("program_name", event.program_name.as_deref()),
                ("timestamp", event.timestamp.as_deref()),
                ("hostname", host),
            ];
            for (name, value) in members {
                if let Some(value) = value {
                    object.text(name, value);
                }
            }
            object.close();
        };
        if early {
            predecoder(root);
        }
        let mut decoder = Object::open(root.named("decoder"));
        if let Some(info) = self.decoder {
            if info.accumulate {
                decoder.raw("accumulate", "1");
            }
            if let Some(parent) = &info.parent {
                decoder.text("parent", parent.as_bytes());
            }
            decoder.text("name", info.name.as_bytes());
            if let Some(comment) = &info.ftscomment {
                decoder.text("ftscomment", comment.as_bytes());
            }
        }
        decoder.close();
        if let Some(previous) = self.previous_log {
            root.text("previous_log", previous);
        }
        let any_static = || StaticField::ALL.iter().any(|field| event.field(*field).is_some());
        if event.has_dynamic() {
            let data = Tree::of(event);
            if !data.is_empty() {
                data.write(root.named("data"));
            }
        } else if any_static() {
            let mut data = Object::open(root.named("data"));
            for field in StaticField::ALL {
                if let Some(value) = event.field(field) {
                    data.text(field.name(), value);
                }
            }
            data.close();
        }
        if !early && host.is_some() {
            predecoder(root);
        }
    }

    fn agent(&self, out: &mut Vec<u8>) {
        let agent = &self.event.event.agent;
        let mut object = Object::open(out);
        object.text("id", agent.id.to_string().as_bytes());
        let wrapped = self.wrapped_location();
        match wrapped {
            Some((name, _)) => object.text("name", name),
            None => object.text("name", self.settings.manager_name.as_bytes()),
        }
        let ip = agent.ip.as_deref().map(str::as_bytes).or_else(|| wrapped.and_then(|(_, ip)| ip));
        if let Some(ip) = ip.filter(|ip| !ip.is_empty() && *ip != b"any") {
            object.text("ip", ip);
        }
        if !agent.labels.is_empty() {
            let mut labels = Tree::default();
            for (key, value) in &agent.labels {
                labels.insert(key.as_bytes(), value.as_bytes());
            }
            labels.write(object.named("labels"));
        }
        object.close();
    }

    /// Name and address of `(name) ip->path`.
    fn wrapped_location(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let rest = self.event.location.strip_prefix(b"(")?;
        let close = memchr::memchr(b')', rest)?;
        let ip = rest[close..].strip_prefix(b") ").map(|ip| {
            let end = memchr::memchr(b'-', ip).unwrap_or(ip.len());
            &ip[..end]
        });
        Some((&rest[..close], ip))
    }

    fn inner_location(&self) -> &[u8] {
        let location = &*self.event.location;
        if !location.starts_with(b"(") {
            return location;
        }
        let inner = memchr::memchr(b'>', location).map_or(location, |at| &location[at + 1..]);
        &inner[..inner.len().min(LOCATION_LIMIT)]
    }

    /// Script, user and host of `(script) user@host->...` at the manager itself.
    fn agentless(&self) -> Option<[&[u8]; 3]> {
        if self.event.event.agent.id != tld_model::AgentId::MANAGER {
            return None;
        }
        let rest = self.event.location.strip_prefix(b"(")?;
        let close = memchr::memmem::find(rest, b") ")?;
        let (script, rest) = (&rest[..close], &rest[close + 2..]);
        let rest = &rest[..memchr::memmem::find(rest, b"->")?];
        let at = memchr::memchr(b'@', rest)?;
        Some([script, &rest[..at], &rest[at + 1..]])
    }

    /// The record of alerts.log around the gap for its id.
    pub(crate) fn plain(&self, tail: &mut Vec<u8>) -> Frame {
        if let Some(form) = &self.settings.plain_form {
            return form.render(self, tail);
        }
        let Some(chosen) = self.rule else { return Frame::default() };
        let event = self.event;
        let info = &chosen.rule.info;
        tail.clear();
        let mail = if info.mail { " mail " } else { "" };
        line(tail, &[b":", mail.as_bytes(), b" - ", info.groups.as_bytes()]);
        let host: &[&[u8]] = match event.hostname() {
            _ if event.location.starts_with(b"(") => &[],
            Some(host) => &[host, b"->"],
            None => &[b"->"],
        };
        plain_stamp(&self.local, tail);
        tail.push(b' ');
        host.iter().for_each(|part| tail.extend_from_slice(part));
        line(tail, &[&event.location]);
        for (label, value) in &event.event.agent.labels {
            line(tail, &[label.as_bytes(), b": ", value.as_bytes()]);
        }
        tail.extend_from_slice(b"Rule: ");
        decimal(info.id.0, tail);
        tail.extend_from_slice(b" (level ");
        decimal(u32::from(info.level), tail);
        line(tail, &[b") -> '", chosen.description, b"'"]);
        let named: [(&[u8], StaticField); 5] = [
            (b"Src IP: ", StaticField::SrcIp),
            (b"Src Port: ", StaticField::SrcPort),
            (b"Dst IP: ", StaticField::DstIp),
            (b"Dst Port: ", StaticField::DstPort),
            (b"User: ", StaticField::DstUser),
        ];
        for (name, field) in named {
            if let Some(value) = event.field(field) {
                line(tail, &[name, value]);
            }
        }
        line(tail, &[&event.full_log]);
        for (key, value) in event.dynamic().filter(|(_, value)| !value.is_empty()) {
            line(tail, &[key, b": ", value]);
        }
        for last in self.last_events.iter() {
            line(tail, &[last]);
        }
        tail.push(b'\n');
        Frame { head: b"** Alert ".to_vec(), tail: tail.clone() }
    }
}

/// The parts of `rule` in alerts that are the same for every event, as bytes.
#[derive(Debug, Default)]
pub(crate) struct Constant {
    /// The description, if no value of the event stands in it.
    pub(crate) description: Option<Arc<[u8]>>,
    /// From the brace to the key of the description.
    head: Vec<u8>,
    /// From behind the description to the counter.
    middle: Vec<u8>,
    /// From `mail` on, without the brace.
    tail: Vec<u8>,
}

impl Constant {
    /// Of a rule that has got its place.
    pub(crate) fn new(rule: &Rule) -> Self {
        let Rule { info, shown, .. } = rule;
        let mut head = Vec::new();
        let mut object = Object::open(&mut head);
        if info.level > 0 {
            object.raw("level", &info.level.to_string());
        }
        object.named("description");
        let mut middle = Vec::new();
        let mut object = Object::open(&mut middle);
        object.text("id", info.id.to_string().as_bytes());
        if !shown.mitre.tactic.is_empty() {
            let mut mitre = Object::open(object.named("mitre"));
            for (name, values) in [
                ("id", &shown.mitre.id),
                ("tactic", &shown.mitre.tactic),
                ("technique", &shown.mitre.technique),
            ] {
                mitre.texts(name.as_bytes(), values.iter().map(String::as_bytes));
            }
            mitre.close();
        }
        for (name, text) in [("cve", &shown.cve), ("info", &shown.info)] {
            if !text.is_empty() {
                object.text(name, text);
            }
        }
        if let Some(frequency) = info.frequency {
            object.raw("frequency", &frequency.to_string());
        }
        let mut tail = Vec::new();
        let mut object = Object::open(&mut tail);
        object.raw("mail", if info.mail { "true" } else { "false" });
        for (name, values) in groups::arrays(&info.groups) {
            object.texts(name.as_bytes(), values);
        }
        // The pieces are members of one object: its brace becomes the comma between them.
        middle[0] = b',';
        tail[0] = b',';
        [&mut head, &mut middle, &mut tail].into_iter().for_each(Vec::shrink_to_fit);
        let fixed = memchr::memmem::find(&info.description, b"$(").is_none();
        let description = fixed.then(|| info.description.as_slice().into());
        Self { description, head, middle, tail }
    }
}

impl Chosen<'_> {
    fn write(&self, shape: Shape, compliance: &[compliance::Array<'_>], out: &mut Vec<u8>) {
        let Constant { head, middle, tail, .. } = &self.rule.constant;
        out.extend_from_slice(head);
        json::string(self.description, out);
        out.extend_from_slice(middle);
        if !self.rule.no_counter {
            out.extend_from_slice(b",\"firedtimes\":");
            decimal(self.fired, out);
        }
        out.extend_from_slice(tail);
        for (name, values) in compliance {
            out.push(b',');
            let mut array = Vec::new();
            Object::open(&mut array).texts(name, values.iter().copied());
            out.extend_from_slice(array.get(1..).unwrap_or_default());
        }
        if self.rule.info.level == 0 && shape == Shape::Logtest {
            out.extend_from_slice(b",\"level\":0");
        }
        out.push(b'}');
    }
}

/// Appends a number.
fn decimal(number: u32, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the last digits of a number.
fn digits<const N: usize>(number: u32, out: &mut Vec<u8>) {
    let mut text = [0; N];
    let mut rest = number;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text);
}

/// [`LocalTime::alert_stamp`] in quotes; years beyond four digits go the long way.
fn alert_stamp(at: &LocalTime, out: &mut Vec<u8>) {
    out.push(b'"');
    match u32::try_from(at.year) {
        Ok(year @ 0..=9999) => {
            digits::<4>(year, out);
            for (mark, number) in [(b'-', at.month), (b'-', at.day), (b'T', at.hour)] {
                out.push(mark);
                digits::<2>(u32::from(number), out);
            }
            clock(at, out);
            out.push(b'.');
            digits::<3>(at.millis, out);
            out.push(if at.offset < 0 { b'-' } else { b'+' });
            let minutes = at.offset.unsigned_abs() / 60;
            digits::<2>(minutes / 60, out);
            digits::<2>(minutes % 60, out);
        }
        _ => out.extend_from_slice(at.alert_stamp().to_string().as_bytes()),
    }
    out.push(b'"');
}

/// [`LocalTime::plain_stamp`].
fn plain_stamp(at: &LocalTime, out: &mut Vec<u8>) {
    match u32::try_from(at.year) {
        Ok(year @ 0..=9999) => {
            digits::<4>(year, out);
            out.push(b' ');
            out.extend_from_slice(at.month_name().as_bytes());
            for number in [at.day, at.hour] {
                out.push(b' ');
                digits::<2>(u32::from(number), out);
            }
            clock(at, out);
        }
        _ => out.extend_from_slice(at.plain_stamp().to_string().as_bytes()),
    }
}

/// Minutes and seconds behind the hour.
fn clock(at: &LocalTime, out: &mut Vec<u8>) {
    for number in [at.minute, at.second] {
        out.push(b':');
        digits::<2>(u32::from(number), out);
    }
}

fn line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
    out.push(b'\n');
}

/// The last events as one text; nothing unless there are two and the second is not empty.
pub(crate) fn previous_output(last_events: &Texts) -> Option<Vec<u8>> {
    has_previous(last_events).then(|| last_events.iter().collect::<Vec<_>>().join(&b'\n'))
}

fn has_previous(last_events: &Texts) -> bool {
    last_events.get(1).is_some_and(|second| !second.is_empty())
}

/// The host of a classic header: three letters, day, time, then the next run without blanks. Independent of
/// pre-decoding, as the contract has it.
fn header_host(log: &[u8]) -> Option<&[u8]> {
    const SHAPE: &[u8; 16] = b"Aaa 9d dd:dd:dd ";
    let header = log.get(..SHAPE.len())?;
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
