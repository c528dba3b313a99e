//! Answers to the manager's queries: about this part from what it knows, about the execution daemon from its socket.
//! Invariant: a query costs one of a few threads for a few seconds, and the connection nothing.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tld_config::{Client, ClientBuffer, InternalOptions, Label, LocalFile};
use tld_wire::control::QueryTarget;

use super::status::Status;
use crate::spool::Spool;

const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER: usize = 65_000;
const NO_SECTION: &str = "err Could not get requested section";
const NO_COMMAND: &str = "err Unrecognized command";
const NOBODY: &str = "err No such file or directory";

/// See the module.
#[derive(Debug)]
pub(crate) struct Answers {
    home: PathBuf,
    agent: Vec<(&'static str, Value)>,
    logcollector: Vec<(&'static str, Value)>,
    buffered: bool,
    status: Arc<Status>,
    spool: Arc<Spool>,
    running: Arc<AtomicUsize>,
}

impl Answers {
    pub(crate) fn new(
        home: &Path,
        settings: &tld_config::Settings,
        options: &InternalOptions,
        status: Arc<Status>,
        spool: Arc<Spool>,
    ) -> Self {
        Self {
            home: home.to_path_buf(),
            agent: vec![
                ("client", json!({ "client": client(&settings.client) })),
                ("buffer", json!({ "buffer": buffer(&settings.client_buffer) })),
                ("labels", json!({ "labels": labels(&settings.labels) })),
                ("internal", json!({ "internal": { "agent": internal(options, "agent") } })),
                ("anti_tampering", json!({ "anti_tampering": { "package_uninstallation": false } })),
            ],
            logcollector: vec![
                ("localfile", json!({ "localfile": localfiles(&settings.localfiles) })),
                ("socket", json!({ "target": [{ "name": "agent" }] })),
                ("internal", json!({ "internal": { "logcollector": internal(options, "logcollector") } })),
            ],
            buffered: !settings.client_buffer.disabled,
            status,
            spool,
            running: Arc::default(),
        }
    }

    /// Finds the answer and hands it on, possibly later from another thread.
    pub(crate) fn ask(
        &self,
        target: QueryTarget,
        text: Vec<u8>,
        hand_on: impl FnOnce(Vec<u8>) + Send + 'static,
    ) {
        let question = String::from_utf8_lossy(&text).trim().to_owned();
        let (word, rest) = question.split_once(' ').map_or((question.as_str(), ""), |(a, b)| (a, b.trim()));
        match target {
            QueryTarget::Agent => hand_on(self.own(word, rest).into_bytes()),
            QueryTarget::Logcollector => {
                let answer =
                    if word == "getconfig" { section(&self.logcollector, rest) } else { NO_COMMAND.into() };
                hand_on(answer.into_bytes());
            }
            QueryTarget::Com => self.forward("com", text, hand_on),
            QueryTarget::Syscheck | QueryTarget::Modules | QueryTarget::Upgrade => hand_on(NOBODY.into()),
        }
    }

    fn own(&self, word: &str, rest: &str) -> String {
        match word {
            "getstate" => {
                let waiting = self.spool.head().saturating_sub(self.spool.done());
                self.status.json(waiting, self.buffered).to_string()
            }
            "getconfig" => section(&self.agent, rest),
            _ => NO_COMMAND.into(),
        }
    }

    fn forward(&self, socket: &str, text: Vec<u8>, hand_on: impl FnOnce(Vec<u8>) + Send + 'static) {
        let running = Arc::clone(&self.running);
        if running.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
            running.fetch_sub(1, Ordering::SeqCst);
            return hand_on(b"err Too many requests".to_vec());
        }
        let path = self.home.join("queue/sockets").join(socket);
        let counter = Arc::clone(&running);
        let work = move || {
            let answer = talk(&path, &text).unwrap_or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => NOBODY.into(),
                io::ErrorKind::ConnectionRefused => b"err Connection refused".to_vec(),
                _ => b"err Internal error".to_vec(),
            });
            counter.fetch_sub(1, Ordering::SeqCst);
            hand_on(answer);
        };
        // Without a thread there is no answer; the manager's patience ends by itself.
        if std::thread::Builder::new().name("query".into()).spawn(work).is_err() {
            running.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// One frame there, one frame back.
fn talk(path: &Path, text: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&tld_wire::frame::encode(text).map_err(io::Error::other)?)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn section(sections: &[(&str, Value)], name: &str) -> String {
    match sections.iter().find(|(known, _)| *known == name) {
        Some((_, value)) => {
            let mut text = format!("ok {value}");
            if text.len() > ANSWER {
                text = "err The section is too long".into();
            }
            text
        }
        None => NO_SECTION.into(),
    }
}

const fn word(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn client(client: &Client) -> Value {
    let servers: Vec<_> = client
        .servers
        .iter()
        .map(|server| {
            json!({
                "address": server.address,
                "port": server.port,
                "protocol": if server.udp { "udp" } else { "tcp" },
                "max_retries": server.max_retries,
                "retry_interval": server.retry_interval.as_secs(),
            })
        })
        .collect();
    json!({
        "config-profile": client.config_profile,
        "notify_time": client.notify_time.as_secs(),
        "time-reconnect": client.time_reconnect.as_secs(),
        "force_reconnect_interval": client.force_reconnect_interval.map_or(0, |interval| interval.as_secs()),
        "ip_update_interval": 0,
        "auto_restart": word(client.auto_restart),
        "remote_conf": "yes",
        "crypto_method": if client.blowfish { "blowfish" } else { "aes" },
        "server": servers,
        "enrollment": {
            "enabled": word(client.enrollment.enabled),
            "port": client.enrollment.port,
            "delay_after_enrollment": client.enrollment.delay_after_enrollment.as_secs(),
        },
    })
}

fn buffer(buffer: &ClientBuffer) -> Value {
    json!({
        "disabled": word(buffer.disabled),
        "queue_size": buffer.queue_size,
        "events_per_second": buffer.events_per_second,
    })
}

fn labels(labels: &[Label]) -> Value {
    let one = |label: &Label| json!({ "key": label.key, "value": label.value, "hidden": word(label.hidden) });
    labels.iter().map(one).collect()
}

fn localfiles(files: &[LocalFile]) -> Value {
    let one = |file: &LocalFile| {
        let mut value = json!({ "logformat": file.log_format, "target": ["agent"] });
        if let Some(command) = &file.command {
            value["command"] = json!(command);
            value["alias"] = json!(file.alias.as_ref().unwrap_or(command));
            value["frequency"] = json!(file.frequency.as_secs());
        } else {
            value["file"] = json!(file.location);
            value["only-future-events"] = json!(word(file.only_future_events));
        }
        value
    };
    files.iter().map(one).collect()
}

fn internal(options: &InternalOptions, part: &str) -> Value {
    let names: &[&str] = match part {
        "agent" => &[
            "recv_timeout",
            "state_interval",
            "warn_level",
            "normal_level",
            "tolerance",
            "min_eps",
            "remote_conf",
        ],
        _ => &["loop_timeout", "max_lines", "max_files", "queue_size", "remote_commands", "vcheck_files"],
    };
    names.iter().map(|name| ((*name).to_owned(), json!(options.value(&format!("{part}.{name}"))))).collect()
}
