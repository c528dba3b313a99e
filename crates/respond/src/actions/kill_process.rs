//! `kill-process`: ends the process that an alert names by its number. Numbers are used again, so the process must be
//! older than the alert, and run the file that the alert names, if it names one.
//! Invariant: the process that was checked is the one that is signalled (a descriptor holds it), and none of ours or of
//! the system's own is.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tld_sys::clock::{Clock as _, SystemClock};

use super::{Call, Failure, Local, Proof, Subject, Takes};

/// See the module.
pub(crate) struct KillProcess;

/// The file that the process must run, if the alert tells.
fn wanted_file(call: &Call) -> Option<PathBuf> {
    let paths = ["data/exe", "data/audit/exe", "data/process/exe", "data/process/path"];
    paths.iter().find_map(|path| call.text(path)).filter(|text| text.starts_with('/')).map(PathBuf::from)
}

/// Seconds of the wall clock at which a process began.
fn began(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, a closing bracket too.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let since_boot = ticks / TICKS;
    let boot = SystemClock.wall_nanos() as f64 / 1e9 - SystemClock.boot().as_secs_f64();
    Some(boot + since_boot)
}

fn is_ours(pid: u32) -> bool {
    let same = |other: Pid| u32::try_from(other.as_raw_nonzero().get()) == Ok(pid);
    pid <= 1 || same(getpid()) || getppid().is_some_and(same)
}

/// Whether a process runs this program, or one of the installation: the service that was asked, its other half, the
/// daemons that it stands beside.
fn runs_ours(call: &Call, pid: u32, file: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let (this, own) = (identity(&exe(pid)), identity(Path::new("/proc/self/exe")));
    file.starts_with(&call.home) || (this.is_some() && this == own)
}

fn exe(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

/// Whether `file`, as the kernel names it, is the wanted one. Attackers remove their programs once they run.
fn is_file(file: &Path, wanted: &Path) -> bool {
    file == wanted || file.to_str().and_then(|text| text.strip_suffix(" (deleted)")) == wanted.to_str()
}

impl Local for KillProcess {
    fn names(&self) -> &'static [&'static str] {
        &["kill-process"]
    }

    fn takes(&self) -> Option<Takes> {
        Some(Takes::Process)
    }

    fn subject(&self, call: &Call) -> Result<Subject, String> {
        let places = ["data/pid", "data/process/pid", "data/audit/pid"];
        let value = places.iter().find_map(|place| crate::member::at(&call.alert, place));
        let pid = match value {
            Some(Value::Number(number)) => number.as_u64().and_then(|pid| u32::try_from(pid).ok()),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        pid.filter(|pid| *pid > 0).map(Subject::Process).ok_or_else(|| "Cannot read 'pid' from data".into())
    }

    fn lasts(&self) -> bool {
        false
    }

    fn apply(&self, call: &Call, subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        let Subject::Process(pid) = *subject else { return Err(Failure::Failed("no process".into())) };
        if is_ours(pid) {
            return Err(Failure::Refused(format!("process {pid} is ours or the system's first")));
        }
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| Failure::Failed(format!("{pid} is no process number")))?;
        let held = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(held) => held,
            Err(rustix::io::Errno::SRCH) => return Ok(format!("process {pid} had ended already")),
            Err(error) => return Err(Failure::Failed(format!("cannot hold process {pid}: {error}"))),
        };
        // From here on the number cannot pass to another process unnoticed: the descriptor stays with this one.
        let Ok(file) = std::fs::read_link(exe(pid)) else {
            return Err(Failure::Refused(format!("process {pid} runs no file that can be seen")));
        };
        if runs_ours(call, pid, &file) {
            let text = format!("process {pid} (`{}`) is one of this installation", file.display());
            return Err(Failure::Refused(text));
        }
        if let Some(wanted) = wanted_file(call).filter(|wanted| !is_file(&file, wanted)) {
            let text = format!("process {pid} runs `{}`, not `{}`", file.display(), wanted.display());
            return Err(Failure::Refused(text));
        }
        let ordered = call.created.nanos() as f64 / 1e9;
        if began(pid).is_none_or(|began| began > ordered + SLACK) {
            return Err(Failure::Refused(format!("process {pid} is younger than the alert")));
        }
        pidfd_send_signal(&held, Signal::KILL)
            .map_err(|error| Failure::Failed(format!("cannot end process {pid}: {error}")))?;
        let patience = Timespec::try_from(PATIENCE).ok();
        let gone = poll(&mut [PollFd::new(&held, PollFlags::IN)], patience.as_ref());
        if gone != Ok(1) {
            return Err(Failure::Failed(format!("process {pid} still lives {PATIENCE:?} after the signal")));
        }
        Ok(format!("process {pid} (`{}`) has ended", file.display()))
    }

    fn revert(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<Proof, Failure> {
        Ok("nothing to undo".into())
    }

    fn verify(&self, _call: &Call, _subject: &Subject, _prior: &str) -> Result<bool, Failure> {
        Ok(true)
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// What the kernel counts process times in, whatever it counts itself in.
const TICKS: f64 = 100.0;
/// Clocks of different make may disagree by this many seconds.
const SLACK: f64 = 1.0;
