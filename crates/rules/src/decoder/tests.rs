//! Decoders loaded from text and run on lines of our own; the reference's answers are in `conformance`.

mod accumulate;
mod candidates;
mod conformance;
mod contested;
mod eventchannel;
mod json;
mod loading;
mod plugins;
mod selection;

use tld_model::{Event, Timestamp};
use tld_xml::{Diagnostic, Source};

use super::{DecodeResult, DecoderOptions, Decoders, Scratch};
use crate::predecode::{HostNames, predecode};

/// What a line became: decoder, static fields, dynamic fields.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    decoder: String,
    fields: Vec<(String, String)>,
    result: DecodeResult,
}

impl Outcome {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn listed(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
        fields.join(" ")
    }
}

fn load(xml: &str) -> (Decoders, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let sources = [Source::new("own.xml", xml.as_bytes())];
    let decoders = Decoders::load(&sources, &DecoderOptions::default(), &mut diagnostics);
    (decoders, diagnostics)
}

fn loaded(xml: &str) -> Decoders {
    let (decoders, diagnostics) = load(xml);
    let problems: Vec<String> = diagnostics.iter().map(|problem| problem.render(false)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    decoders
}

fn event(queue: u8, text: &str) -> Event {
    Event { queue, ..Event::local("stdin", text, Timestamp::EPOCH) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn decode_event(decoders: &Decoders, event: &Event) -> Outcome {
    let hosts = HostNames::new("manager.example");
    let mut decoded = predecode(event, &hosts);
    let result = decoders.decode(&mut decoded, &mut Scratch::new(), None);
    let statics = crate::StaticField::ALL
        .into_iter()
        .filter_map(|field| Some((field.name().to_owned(), text(decoded.field(field)?))));
    let dynamic = decoded.dynamic().map(|(key, value)| (text(&key), text(value)));
    Outcome {
        decoder: decoded.decoder.map(|id| decoders.info(id).name.clone()).unwrap_or_default(),
        fields: statics.chain(dynamic).collect(),
        result,
    }
}

fn decode(decoders: &Decoders, line: &str) -> Outcome {
    decode_event(decoders, &event(b'1', line))
}
