//! One request and its answer (wire contract 5.5, analysis-output 6.1). Members are checked in a fixed order, the first
//! problem is the answer.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;
use tld_model::Event;
use tld_rules::Verdict;

use super::session::{Sessions, TOKEN};
use super::{ANSWER_LIMIT, rules_debug};

/// Longer locations are cut.
const LOCATION_LIMIT: usize = 2048;
/// Characters shown on each side of a syntax error.
const SURROUNDINGS: usize = 20;

type Members<'a> = HashMap<String, &'a RawValue>;

/// A request that is not carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("(7307): Error parsing JSON in position {position}, ... {around} ...")]
    Syntax { position: usize, around: String },
    #[error("(7308): '{name}' JSON field is required and must be {kind}")]
    Field { name: &'static str, kind: &'static str },
    #[error("(7306): Unable to process command")]
    Command,
    #[error("(7309): 'token' must be a session's token of {TOKEN} characters")]
    Token,
    #[error("(7310): a request of {0} bytes is too large, {limit} are permitted", limit = super::REQUEST_LIMIT)]
    TooLarge(usize),
}

impl Refusal {
    fn code(&self) -> u8 {
        match self {
            Self::Syntax { .. } => 1,
            Self::Field { .. } => 2,
            Self::Command => 3,
            Self::Token => 4,
            Self::TooLarge(_) => 5,
        }
    }
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Refused {
    message: String,
    error: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Nothing>,
}

#[derive(Serialize)]
struct Answer<'a> {
    error: u8,
    data: Data<'a>,
}

#[derive(Serialize, Default)]
struct Data<'a> {
    messages: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules_debug: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<bool>,
    codemsg: i8,
}

/// Carries a request out.
pub(super) fn answer(request: &[u8], sessions: &Sessions) -> Vec<u8> {
    sessions.forget_idle();
    let text = String::from_utf8_lossy(request);
    carry_out(&text, sessions).unwrap_or_else(|refusal| refused(&refusal))
}

/// The answer to a request that was not even read.
pub(super) fn too_large(length: usize) -> Vec<u8> {
    refused(&Refusal::TooLarge(length))
}

fn refused(refusal: &Refusal) -> Vec<u8> {
    let data = (!matches!(refusal, Refusal::TooLarge(_))).then_some(Nothing {});
    json(&Refused { message: refusal.to_string(), error: refusal.code(), data })
}

/// Our own structures always have a JSON form.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn carry_out(text: &str, sessions: &Sessions) -> Result<Vec<u8>, Refusal> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let whole = match values.next() {
        Some(Ok(whole)) => whole,
        Some(Err(error)) => return Err(syntax(text, &error)),
        None => return Err(Refusal::Syntax { position: 0, around: String::new() }),
    };
    // A member with the name of another replaces it; what is no object has no members.
    let request: Members<'_> = serde_json::from_str(whole.get()).unwrap_or_default();
    let command = string(&request, "command")?;
    let parameters = request.get("parameters").and_then(|raw| serde_json::from_str(raw.get()).ok());
    let parameters: Members<'_> =
        parameters.ok_or(Refusal::Field { name: "parameters", kind: "an object" })?;
    match command.as_str() {
        "log_processing" => process(&parameters, sessions),
        "remove_session" => remove(&parameters, sessions),
        _ => Err(Refusal::Command),
    }
}

fn syntax(text: &str, error: &serde_json::Error) -> Refusal {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let position = before + error.column();
    let bytes = text.as_bytes();
    let start = position.saturating_sub(SURROUNDINGS);
    let end = bytes.len().min(position.saturating_add(SURROUNDINGS));
    let around = String::from_utf8_lossy(bytes.get(start..end).unwrap_or_default()).into_owned();
    Refusal::Syntax { position, around }
}

fn string(members: &Members<'_>, name: &'static str) -> Result<String, Refusal> {
    let text: Option<String> = members.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok());
    text.filter(|text| !text.is_empty()).ok_or(Refusal::Field { name, kind: "a string" })
}

/// The text to be judged; an object stands for its own compact text.
fn event(members: &Members<'_>) -> Result<Vec<u8>, Refusal> {
    let object = members.get("event").map(|raw| raw.get()).filter(|raw| raw.starts_with('{'));
    match object.map(compact) {
        None => string(members, "event").map(String::into_bytes),
        Some(object) if object == b"{}" => {
            Err(Refusal::Field { name: "event", kind: "a string or an object with members" })
        }
        Some(object) => Ok(object),
    }
}

/// Valid JSON without the blanks between its tokens.
fn compact(json: &str) -> Vec<u8> {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |byte: &u8| {
        if quoted {
            quoted = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            return true;
        }
        quoted = *byte == b'"';
        !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
    };
    json.bytes().filter(keep).collect()
}

fn process(parameters: &Members<'_>, sessions: &Sessions) -> Result<Vec<u8>, Refusal> {
    let text = event(parameters)?;
    string(parameters, "log_format")?;
    let location = string(parameters, "location")?;
    let options: Members<'_> =
        parameters.get("options").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let debug = options.get("rules_debug").is_some_and(|raw| raw.get() == "true");
    let wanted = parameters.get("token").and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let mut data = Data { messages: Vec::new(), ..Data::default() };
    let found = wanted.as_ref().and_then(|token| Some((token.clone(), sessions.session(token)?)));
    let (token, session) = found.unwrap_or_else(|| {
        if let Some(wanted) = wanted {
            let wanted: String = wanted.chars().take(TOKEN).collect();
            data.messages.push(format!("WARNING: (7003): '{wanted}' token expires"));
            data.codemsg = 1;
        }
        let (token, session) = sessions.open();
        data.messages.push(format!("INFO: (7202): Session initialized with token '{token}'"));
        (token, session)
    });
    let location = location.as_bytes().get(..LOCATION_LIMIT).unwrap_or(location.as_bytes());
    let event = Event { location: location.into(), ..Event::local("", text, sessions.now()) };
    session.with(|analyzer| {
        let (verdict, trace) = analyzer.analyze_traced(&event);
        data.output = output(analyzer, &verdict);
        data.alert = Some(verdict.alert_flag);
        data.rules_debug = debug.then(|| rules_debug(analyzer.ruleset(), &trace));
    });
    data.token = Some(&token);
    Ok(fitting(data))
}

/// What logtest shows of an event, with the id that an alert at the start of a file would have.
fn output(analyzer: &tld_rules::Analyzer, verdict: &Verdict<'_>) -> Option<Box<RawValue>> {
    let mut bytes = Vec::new();
    let id = format!("{}.0", verdict.decoded.event.received.secs());
    analyzer.event_json(verdict).write(&id, &mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    RawValue::from_string(text).ok()
}

/// The answer within its limit: the first steps through the rules go first, because the last ones lead to the result.
fn fitting(data: Data<'_>) -> Vec<u8> {
    let token = data.token;
    let mut answer = Answer { error: 0, data };
    let mut bytes = json(&answer);
    if let Some(excess) = bytes.len().checked_sub(ANSWER_LIMIT)
        && let Some(lines) = &mut answer.data.rules_debug
    {
        let mut freed = 0;
        let enough = |line: &String| {
            freed += line.len();
            freed > excess + 100
        };
        let spared = lines.iter().position(enough).map_or(lines.len(), |at| at + 1);
        lines.splice(..spared, [format!("({spared} earlier lines left out)")]);
        bytes = json(&answer);
    }
    if bytes.len() <= ANSWER_LIMIT {
        return bytes;
    }
    let messages = vec![format!("ERROR: the answer has {} bytes, {ANSWER_LIMIT} are permitted", bytes.len())];
    json(&Answer { error: 0, data: Data { messages, token, codemsg: -1, ..Data::default() } })
}

fn remove(parameters: &Members<'_>, sessions: &Sessions) -> Result<Vec<u8>, Refusal> {
    let token = string(parameters, "token").ok().filter(|token| token.len() == TOKEN);
    let token = token.ok_or(Refusal::Token)?;
    let (message, codemsg) = if sessions.close(&token) {
        (format!("INFO: (7206): The session '{token}' was closed successfully"), 0)
    } else {
        (format!("WARNING: (7003): '{token}' token expires"), -1)
    };
    Ok(json(&Answer { error: 0, data: Data { messages: vec![message], codemsg, ..Data::default() } }))
}
