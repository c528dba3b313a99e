//! Questions to agents (wire contract 3.5) and their answers, and the socket where tools of this host ask them.
//! Invariant: every question that was asked gets one text back, the agent's answer or why there is none.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tld_model::AgentId;
use tld_sys::clock::Deadline;
use tld_wire::control::{LEAD, QueryId};
use tld_wire::frame;

use super::peer::Link;
use super::{Hub, lock};
use crate::framed;
use crate::reach::Reach as _;

/// Questions that may wait for answers.
const POOL: usize = 1_024;
/// Connections of tools at one time.
const CLIENTS: usize = 128;
/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Time for a tool to ask, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Over datagrams a question is sent so often, a second apart.
const ATTEMPTS: u32 = 4;
const AGAIN: Duration = Duration::from_secs(1);

const TIMEOUT: &str = "err Response timeout";
const NOT_SENT: &str = "err Cannot send request";
const INTERNAL: &str = "err Internal error";

#[derive(Debug, Default)]
pub(super) struct Queries(Mutex<HashMap<(AgentId, QueryId), Asker>>);

/// Who waits for an answer.
type Asker = SyncSender<Vec<u8>>;

impl Queries {
    /// An agent has answered. Answers that nobody waits for are dropped.
    pub(super) fn answer(&self, agent: AgentId, id: &QueryId, text: Vec<u8>) {
        if let Some(asker) = lock(&self.0).remove(&(agent, id.clone())) {
            let _ = asker.try_send(text);
        }
    }
}

impl Hub {
    /// Asks an agent and waits for its answer, no longer than the contract's minute.
    pub fn query(&self, agent: AgentId, target: &str, text: &[u8]) -> Vec<u8> {
        self.query_within(agent, target, text, ANSWER)
    }

    fn query_within(&self, agent: AgentId, target: &str, text: &[u8], patience: Duration) -> Vec<u8> {
        let mut random = [0; 4];
        if getrandom::fill(&mut random).is_err() {
            return INTERNAL.into();
        }
        let id = QueryId::new(u32::from_le_bytes(random));
        let (tell, told) = sync_channel(1);
        {
            let mut waiting = lock(&self.queries.0);
            if waiting.len() >= POOL {
                return INTERNAL.into();
            }
            waiting.insert((agent, id.clone()), tell);
        }
        let payload = [LEAD, b"req ", id.as_str().as_bytes(), b" ", target.as_bytes(), b" ", text].concat();
        let deadline = Deadline::after(patience);
        let datagrams =
            self.peer(agent).is_some_and(|peer| matches!(peer.state().link, Some(Link::Datagrams { .. })));
        let mut attempts = if datagrams { ATTEMPTS } else { 1 };
        let answer = loop {
            if attempts > 0 {
                attempts -= 1;
                if self.relay(agent, &payload).is_err() {
                    break NOT_SENT.into();
                }
            }
            let left = deadline.remaining().unwrap_or(patience);
            match told.recv_timeout(if attempts > 0 { left.min(AGAIN) } else { left }) {
                Ok(answer) => break answer,
                Err(RecvTimeoutError::Timeout) if !deadline.passed() => {}
                Err(_) => break TIMEOUT.into(),
            }
        };
        lock(&self.queries.0).remove(&(agent, id));
        answer
    }
}

/// The socket's service, `queue/sockets/remote`. Dropping it ends it.
#[derive(Debug)]
pub(super) struct QuerySocket {
    path: PathBuf,
    wake: Option<io::PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// Starts to serve. A socket left behind by a dead process is replaced, a live one is not.
pub(super) fn serve(path: PathBuf, hub: Arc<Hub>) -> io::Result<QuerySocket> {
    let listener = crate::local::listen(&path)?;
    let (asleep, wake) = io::pipe()?;
    let thread = std::thread::Builder::new().name("remote-socket".into()).spawn(move || {
        let clients = Arc::new(AtomicUsize::new(0));
        while let Ok([ready, false]) =
            tld_sys::ready::readable(&[listener.as_fd(), asleep.as_fd()], Duration::from_secs(3_600))
                .as_deref()
        {
            let (true, Ok((stream, _))) = (ready, listener.accept()) else { continue };
            if clients.load(Ordering::Relaxed) >= CLIENTS {
                continue;
            }
            let place = Place::take(&clients);
            let hub = Arc::clone(&hub);
            let client = move || {
                // A client that goes away or stalls has nobody to be told.
                let _ = converse(&stream, &hub);
                drop(place);
            };
            let _ = std::thread::Builder::new().name("asking".into()).stack_size(256 << 10).spawn(client);
        }
    })?;
    Ok(QuerySocket { path, wake: Some(wake), thread: Some(thread) })
}

impl Drop for QuerySocket {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A client's place; given back however its thread ends.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(clients))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(mut stream: &UnixStream, hub: &Hub) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let request = framed::receive(stream, PATIENCE)?;
    let mut answer = answer(hub, &request);
    answer.truncate(frame::LIMIT);
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&frame::encode(&answer).map_err(io::Error::other)?)
}

/// `<agent id> <target> <payload>`, or one of the JSON commands.
fn answer(hub: &Hub, request: &[u8]) -> Vec<u8> {
    let request = request.strip_suffix(b"\0").unwrap_or(request);
    if request.starts_with(b"{") {
        return command(hub, request);
    }
    let Some((agent, target, text)) = split(request) else { return INTERNAL.into() };
    let Ok(agent) = agent.parse() else { return NOT_SENT.into() };
    hub.query(agent, target, text)
}

fn split(request: &[u8]) -> Option<(&str, &str, &[u8])> {
    let mut parts = request.splitn(3, |byte| *byte == b' ');
    let mut word = || str::from_utf8(parts.next()?).ok().filter(|word| !word.is_empty());
    let (agent, target) = (word()?, word()?);
    // The name would be a path on a careless agent.
    let plain = target.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    plain.then_some((agent, target, parts.next().unwrap_or_default()))
}

fn command(hub: &Hub, request: &[u8]) -> Vec<u8> {
    let asked: Option<serde_json::Value> = tld_wire::control::leading_json(request);
    let command = asked.as_ref().and_then(|asked| asked.get("command")?.as_str());
    let answer = match command {
        Some("getstats") => {
            let (counts, load) = (hub.counts(), hub.events.load());
            serde_json::json!({ "error": 0, "message": "ok", "data": {
                "name": "wazuh-remoted",
                "timestamp": hub.now().secs(),
                "metrics": {
                    "tcp_sessions": counts.connections,
                    "messages": {
                        "received_breakdown": {
                            "control": counts.control, "event": counts.events,
                            "discarded": counts.dropped, "dequeued_after_close": 0, "unknown": counts.refused,
                        },
                        "sent": counts.sent,
                    },
                    "pipeline_full": counts.stalls,
                    "pipeline": {
                        "events": load.items, "bytes": load.bytes, "passed": load.passed,
                        "full": load.full, "peak_bytes": load.peak_bytes,
                    },
                    "entrances": hub.entrances(),
                },
            } })
        }
        _ => serde_json::json!({ "error": 1, "message": "Invalid command", "data": {} }),
    };
    answer.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_three_parts_and_a_target_that_is_no_path() {
        assert_eq!(
            split(b"001 com getconfig active-response"),
            Some(("001", "com", &b"getconfig active-response"[..]))
        );
        assert_eq!(split(b"001 agent getstate"), Some(("001", "agent", &b"getstate"[..])));
        assert_eq!(split(b"001 com"), Some(("001", "com", &b""[..])));
        for bad in ["", "001", "001  x", "001 ../x y", "001 a/b y"] {
            assert_eq!(split(bad.as_bytes()), None, "{bad}");
        }
    }
}
