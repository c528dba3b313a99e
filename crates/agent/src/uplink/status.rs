//! What the agent tells of its connection: `var/run/wazuh-agentd.state` and the query `agent getstate`.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use serde_json::{Value, json};
use tld_model::{Timestamp, Zone};
use tld_sys::clock::{Clock, SystemClock};
use tld_sys::durable;

const FILE: &str = "var/run/wazuh-agentd.state";

/// How it stands with the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Pending,
    Connected,
    Disconnected,
}

impl Standing {
    const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Written by the uplink, read by anybody.
#[derive(Debug)]
pub(crate) struct Status {
    zone: Zone,
    standing: AtomicU8,
    last_keepalive: AtomicI64,
    last_ack: AtomicI64,
    offered: AtomicU64,
    sent: AtomicU64,
    /// Number of the next event to be sent.
    position: AtomicU64,
}

impl Status {
    pub(crate) fn new(zone: Zone) -> Self {
        let none = || AtomicI64::new(0);
        Self {
            zone,
            standing: AtomicU8::new(0),
            last_keepalive: none(),
            last_ack: none(),
            offered: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            position: AtomicU64::new(0),
        }
    }

    pub(crate) fn stands(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::SeqCst);
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::SeqCst) {
            0 => Standing::Pending,
            1 => Standing::Connected,
            _ => Standing::Disconnected,
        }
    }

    pub(crate) fn kept_alive(&self) {
        self.last_keepalive.store(SystemClock.wall_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn heard(&self) {
        self.last_ack.store(SystemClock.wall_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn offered(&self, count: u64) {
        self.offered.fetch_add(count, Ordering::Relaxed);
    }

    /// The next event to be sent has this number.
    pub(crate) fn reached(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    fn stamp(&self, of: &AtomicI64) -> String {
        match of.load(Ordering::Relaxed) {
            0 => String::new(),
            nanos => {
                let at = self.zone.local(Timestamp::from_nanos(nanos));
                at.log_stamp().to_string().replace('/', "-")
            }
        }
    }

    /// The answer to `agent getstate`.
    pub(crate) fn json(&self, waiting: u64, buffered: bool) -> Value {
        json!({"error": 0, "data": {
            "status": self.standing().name(),
            "last_keepalive": self.stamp(&self.last_keepalive),
            "last_ack": self.stamp(&self.last_ack),
            "msg_count": self.offered.load(Ordering::Relaxed),
            "msg_sent": self.sent.load(Ordering::Relaxed),
            "msg_buffer": waiting,
            "buffer_enabled": buffered,
        }})
    }

    /// Writes the state file; a host without its directory has none.
    pub(crate) fn write(&self, home: &Path, waiting: u64) -> std::io::Result<()> {
        let path = home.join(FILE);
        if !path.parent().is_some_and(Path::is_dir) {
            return Ok(());
        }
        let text = format!(
            "# State file for wazuh-agentd\n\nstatus='{}'\nlast_keepalive='{}'\nlast_ack='{}'\nmsg_count='{}'\n\
             msg_sent='{}'\nmsg_buffer='{waiting}'\n",
            self.standing().name(),
            self.stamp(&self.last_keepalive),
            self.stamp(&self.last_ack),
            self.offered.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        );
        durable::replace(&path, text.as_bytes(), 0o640)
    }
}
