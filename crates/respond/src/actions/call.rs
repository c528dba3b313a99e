//! What a local action is told, and how it says no.
//! Invariant: nothing here was interpreted by a shell or will be.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tld_model::Timestamp;

use super::Subject;
use super::firewall_drop::{NO_SOURCE, source};
use crate::guard::Reach;
use crate::member;

/// Where this host keeps what actions change. Tests put other places here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The list that tcp-wrapped services obey.
    pub hosts_deny: PathBuf,
    /// The directory of `ip-customblock`.
    pub ipblock: PathBuf,
    /// Prefix of `etc/passwd` and `etc/shadow`; `/` means the running system.
    pub accounts: PathBuf,
    /// Socket of the system's message bus.
    pub bus: PathBuf,
    /// Directories with the system's tools, the first that has one wins.
    pub tools: Vec<PathBuf>,
    /// Addresses of managers, which an isolated host may still talk to.
    pub managers: Vec<IpAddr>,
    /// Names of managers that nobody could look up.
    pub unknown_managers: Vec<String>,
    /// Name servers that tell where a manager is.
    pub resolvers: Vec<IpAddr>,
}

impl Places {
    /// With these managers and name servers too.
    pub(crate) fn reaching(mut self, reach: Reach) -> Self {
        self.unknown_managers.extend(reach.unknown);
        for (all, more) in [(&mut self.managers, reach.managers), (&mut self.resolvers, reach.resolvers)] {
            all.extend(more);
            all.sort_unstable();
            all.dedup();
        }
        self
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            hosts_deny: "/etc/hosts.deny".into(),
            ipblock: "/ipblock".into(),
            accounts: "/".into(),
            bus: "/run/dbus/system_bus_socket".into(),
            tools: ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
            managers: Vec::new(),
            unknown_managers: Vec::new(),
            resolvers: Vec::new(),
        }
    }
}

/// One order as its action sees it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) home: PathBuf,
    pub(crate) places: Places,
    /// The file name it was started under.
    pub(crate) name: String,
    pub(crate) alert: Value,
    pub(crate) extra_args: Vec<String>,
    /// When the order was given.
    pub(crate) created: Timestamp,
}

impl Call {
    /// The source address, or the contract's text.
    pub(crate) fn address(&self) -> Result<Subject, String> {
        source(&self.alert).map(Subject::Address).ok_or_else(|| NO_SOURCE.into())
    }

    /// A text of the alert by its path of members, with slashes between them.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        member::text(&self.alert, path)
    }

    /// Our directory for state.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.join("var/threatlockdown")
    }

    /// A tool in one of the fixed directories.
    pub(crate) fn tool(&self, name: &str) -> Result<PathBuf, Failure> {
        let found =
            self.places.tools.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
        found.ok_or_else(|| Failure::Unsupported(format!("there is no `{name}` on this system")))
    }
}

/// Why an action was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// This host cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// It must not be done here.
    #[error("{0}")]
    Refused(String),
    /// It was tried.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// An operation on a file that failed.
    pub(crate) fn io(what: &str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        let text = format!("cannot {what} `{}`", path.display());
        move |error| Self::Failed(format!("{text}: {error}"))
    }
}
