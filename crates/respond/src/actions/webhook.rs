//! `wazuh-slack` posts the alert as an attachment that chat services understand, `webhook` posts it as it is. The
//! address is the extra arguments. The system's `curl`, else its `wget`, speaks TLS for us; the document goes through its
//! input or a file.
//! Invariant: nothing but an http or https address is ever fetched, and no alert text becomes an argument.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tld_sys::durable;

use super::{Call, Failure, Local, Proof, Subject, tool};

/// See the module.
pub(crate) struct Slack;
/// See the module.
pub(crate) struct Webhook;

fn url(call: &Call) -> Result<String, String> {
    let url = call.extra_args.join(" ");
    let fit = (url.starts_with("https://") || url.starts_with("http://"))
        && url.len() <= MOST_URL
        && !url.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
    if url.is_empty() {
        return Err("Cannot read 'extra_args' from parameters".into());
    }
    if fit { Ok(url) } else { Err("the extra arguments are no http or https address".into()) }
}

fn check(call: &Call) -> Result<Subject, String> {
    if !call.alert.is_object() {
        return Err("Cannot read 'alert' from data".into());
    }
    url(call).map(|_| Subject::None)
}

fn post(call: &Call, document: &Value) -> Result<Proof, Failure> {
    let url = url(call).map_err(Failure::Failed)?;
    let mut host = url.split('/').nth(2).unwrap_or_default();
    // Evidence is shown to many; an address may hold a password.
    host = host.rsplit('@').next().unwrap_or(host);
    let curl = match call.tool("curl") {
        Ok(curl) => curl,
        Err(neither) => {
            let wget = call.tool("wget").map_err(|_no_wget| neither)?;
            return by_wget(call, &wget, &url, document).map(|()| format!("{host} took it"));
        }
    };
    let fixed = [
        "-q",
        "--silent",
        "--show-error",
        "--fail",
        "--globoff",
        "--max-time",
        "30",
        "--proto",
        "=http,https",
        "-H",
        "Accept: application/json",
        "-H",
        "Content-Type: application/json",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--data-binary",
        "@-",
        "--url",
        url.as_str(),
    ];
    let ended = tool::must(&curl, fixed, document.to_string().as_bytes())?;
    Ok(format!("{host} answered {}", ended.output.trim()))
}

/// Where there is no `curl`, as the contract has it; that tool takes no document from its input.
fn by_wget(call: &Call, wget: &Path, url: &str, document: &Value) -> Result<(), Failure> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let file = call.state().join(format!("post-{process}-{number}"));
    durable::create_dirs(&call.state(), 0o750).map_err(Failure::io("create", &call.state()))?;
    durable::replace(&file, document.to_string().as_bytes(), 0o600).map_err(Failure::io("write", &file))?;
    let post = format!("--post-file={}", file.display());
    let fixed = [
        "--no-config",
        "--no-verbose",
        "--tries=1",
        "--timeout=30",
        "--max-redirect=0",
        "--header=Accept: application/json",
        "--header=Content-Type: application/json",
        "--output-document=/dev/null",
        post.as_str(),
        "--",
        url,
    ];
    let ended = tool::must(wget, fixed, b"");
    let _ = std::fs::remove_file(&file);
    ended.map(drop)
}

/// The document of the contract (active-response 9.14).
fn attachment(alert: &Value) -> Value {
    let at = |path: &str| alert.pointer(path).cloned().filter(|value| !value.is_null());
    let text = |path: &str| at(path).map_or_else(|| "N/A".into(), |value| plain(&value));
    let level = at("/rule/level").and_then(|level| level.as_i64());
    let color = match level {
        Some(..=4) => "good",
        Some(5..=7) => "warning",
        Some(_) => "danger",
        None => "N/A",
    };
    let field = |title: &str, value: String| json!({"title": title, "value": value});
    let mut fields = Vec::new();
    if at("/agent").is_some() {
        fields.push(field("Agent", format!("({}) - {}", text("/agent/id"), text("/agent/name"))));
    }
    if at("/agentless").is_some() {
        fields.push(field("Agentless Host", text("/agentless/host")));
    }
    fields.push(field("Location", text("/location")));
    fields.push(field("Rule ID", format!("{} (level {})", text("/rule/id"), text("/rule/level"))));
    json!({"attachments": [{
        "color": color, "pretext": "WAZUH Alert", "title": text("/rule/description"), "text": text("/full_log"),
        "fields": fields, "ts": text("/id"),
    }]})
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

impl Local for Slack {
    fn names(&self) -> &'static [&'static str] {
        &["wazuh-slack"]
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        check(call)
    }

    fn lasts(&self) -> bool {
        false
    }

    fn apply(&self, call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        post(call, &attachment(&call.alert))
    }

    fn revert(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        Ok("nothing to undo".into())
    }

    fn verify(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        Ok(true)
    }
}

impl Local for Webhook {
    fn names(&self) -> &'static [&'static str] {
        &["webhook"]
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        check(call)
    }

    fn lasts(&self) -> bool {
        false
    }

    fn apply(&self, call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        post(call, &call.alert)
    }

    fn revert(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        Ok("nothing to undo".into())
    }

    fn verify(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        Ok(true)
    }
}

const MOST_URL: usize = 4_095;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attachment_is_the_contracts() {
        let alert = json!({"rule": {"id": "100200", "level": 10, "description": "Many failed logins from one address"},
            "agent": {"id": "001", "name": "web01"}, "location": "/var/log/auth.log", "full_log": "x", "id": "1.2"});
        let expected = json!({"attachments": [{"color": "danger", "pretext": "WAZUH Alert",
            "title": "Many failed logins from one address", "text": "x", "ts": "1.2", "fields": [
                {"title": "Agent", "value": "(001) - web01"}, {"title": "Location", "value": "/var/log/auth.log"},
                {"title": "Rule ID", "value": "100200 (level 10)"}]}]});
        assert_eq!(attachment(&alert), expected);
        assert_eq!(attachment(&json!({}))["attachments"][0]["fields"][0]["value"], "N/A");
    }
}
