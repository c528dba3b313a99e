//! The control socket `queue/sockets/com`: configuration queries, restarts (active-response 2.9 and 6.11, wire 3.5).
//! One request and one answer a connection, each a little-endian length and that many bytes.
//! Invariant: a client that is slow, silent or talks nonsense costs one of a few threads for a few seconds.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tld_config::{InternalOptions, Settings};
use tld_sys::clock::Deadline;
use tld_sys::{ready, unix_socket};

use super::listen::Admission;
use super::runs::Runs;
use super::table::shown;
use super::voice::Voice;

const REQUEST: usize = 65_536;
const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(300);
const CLIENTS: usize = 16;

/// Answers questions.
#[derive(Debug)]
pub(crate) struct Control {
    sections: [(&'static str, Value); 4],
    most_lock: u64,
    runs: Runs,
    voice: Voice,
    locked: Mutex<Option<Deadline>>,
}

impl Control {
    pub(crate) fn new(settings: &Settings, options: &InternalOptions, runs: Runs, voice: Voice) -> Self {
        let most_lock = u64::from(options.value("execd.max_restart_lock").unwrap_or(600));
        Self { sections: sections(settings, options), most_lock, runs, voice, locked: Mutex::new(None) }
    }

    /// Serves the socket until `stop`.
    pub(crate) fn serve(self: &Arc<Self>, listener: &UnixListener, admission: Admission, stop: &AtomicBool) {
        let clients = Arc::new(AtomicUsize::new(0));
        while !stop.load(Ordering::SeqCst) {
            if !matches!(ready::readable(&[listener.as_fd()], TICK).as_deref(), Ok([true])) {
                continue;
            }
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    self.voice.debug(|| format!("a client of the control socket was lost: {error}"));
                    // Out of descriptors, the same client stands there again at once.
                    std::thread::sleep(TICK);
                    continue;
                }
            };
            if !unix_socket::peer(&stream).is_ok_and(|peer| admission.admits(peer)) {
                self.voice
                    .warning("a client of the control socket was turned away: not of this installation");
                continue;
            }
            if clients.fetch_add(1, Ordering::SeqCst) >= CLIENTS {
                clients.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (control, counter) = (Arc::clone(self), Arc::clone(&clients));
            let work = move || {
                if let Err(error) = control.talk(stream) {
                    control.voice.debug(|| format!("a client of the control socket was lost: {error}"));
                }
                counter.fetch_sub(1, Ordering::SeqCst);
            };
            if std::thread::Builder::new().name("control".into()).spawn(work).is_err() {
                clients.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn talk(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > REQUEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its request is too long"));
        }
        let mut request = vec![0; length];
        stream.read_exact(&mut request)?;
        let request = String::from_utf8_lossy(&request);
        let answer = self.answer(request.trim_end_matches(['\0', '\n']));
        let mut frame = u32::try_from(answer.len()).unwrap_or(0).to_le_bytes().to_vec();
        frame.extend_from_slice(answer.as_bytes());
        stream.write_all(&frame)
    }

    fn answer(&self, request: &str) -> String {
        let (word, rest) = request.split_once(' ').map_or((request, ""), |(word, rest)| (word, rest.trim()));
        match word {
            "getconfig" => match self.sections.iter().find(|(name, _)| *name == rest) {
                Some((_, value)) => format!("ok {value}"),
                None => "err Could not get requested section".into(),
            },
            "restart" | "restart-wazuh" => self.restart(false),
            "reload" => self.restart(true),
            "lock_restart" => self.lock(rest),
            _ => {
                self.voice.debug(|| format!("the control socket was asked for '{}'", shown(request)));
                "err Unrecognized command".into()
            }
        }
    }

    fn restart(&self, reload: bool) -> String {
        let locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        match locked.as_ref().and_then(Deadline::remaining).filter(|left| !left.is_zero()) {
            Some(left) => self.voice.info(&format!(
                "restart is locked by an upgrade for another {} s; nothing was done",
                left.as_secs()
            )),
            None => self.runs.restart(reload),
        }
        "ok ".into()
    }

    fn lock(&self, seconds: &str) -> String {
        let seconds = match seconds.parse::<i64>() {
            Ok(-1) => self.most_lock,
            Ok(seconds) => match u64::try_from(seconds) {
                Ok(seconds) => seconds.min(self.most_lock),
                Err(_negative) => return "err Invalid timeout".into(),
            },
            Err(_no_number) => return "err Invalid timeout".into(),
        };
        let until = Deadline::after(Duration::from_secs(seconds));
        *self.locked.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        "ok ".into()
    }
}

fn sections(settings: &Settings, options: &InternalOptions) -> [(&'static str, Value); 4] {
    let word = |yes: bool| if yes { "yes" } else { "no" };
    let mut response = json!({ "disabled": word(settings.responder.disabled) });
    if !settings.responder.repeated_offenders.is_empty() {
        response["repeated_offenders"] = json!(settings.responder.repeated_offenders);
    }
    let option = |name: &str| options.value(name);
    let execd = json!({
        "debug": option("execd.debug"),
        "max_restart_lock": option("execd.max_restart_lock"),
        "request_timeout": option("execd.request_timeout"),
    });
    let (name, node) = (&settings.global.cluster_name, &settings.global.node_name);
    let cluster = json!({ "disabled": word(name.is_none()), "name": name, "node_name": node });
    [
        ("active-response", json!({ "active-response": response })),
        ("logging", json!({ "logging": { "plain": "yes", "json": "no" } })),
        ("internal", json!({ "internal": { "execd": execd } })),
        ("cluster", json!({ "cluster": cluster })),
    ]
}
