//! From a [`Spec`] to a running process.
//!
//! Invariant: between fork (or clone) and exec only calls are made that are safe there: no allocation, no locks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

#[cfg(target_os = "linux")]
use crate::group::Group;

use super::{Child, Limits, Process, Spec, Stdin, Stdout, set_nonblocking};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Above this, descriptors are not searched where the kernel cannot close a range at once.
const DESCRIPTOR_SEARCH: u64 = 65_536;
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Starts a child. A file that is missing, not executable or without a usable interpreter is an error here; one
/// without any interpreter line is given to `/bin/sh` where the C library does that (glibc), as ever.
pub fn spawn(spec: &Spec<'_>) -> io::Result<Child> {
    if !spec.program.as_os_str().as_encoded_bytes().contains(&b'/') {
        let message = format!("`{}` has no directory", spec.program.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let child = start(spec)?;
    #[cfg(target_os = "linux")]
    if let Some(group) = spec.group {
        group.led_by(child.pid);
    }
    // Only our ends: the two ends of a pipe have separate flags, the child's stay blocking.
    for file in [&child.stdin, &child.stderr].into_iter().flatten() {
        set_nonblocking(file)?;
    }
    Ok(child)
}

/// A program that was just written can be busy for an instant: while another thread starts a child, that child holds
/// our writing descriptor until it execs.
fn start(spec: &Spec<'_>) -> io::Result<Child> {
    for _ in 0..BUSY_TRIES {
        match start_once(spec) {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    start_once(spec)
}

fn start_once(spec: &Spec<'_>) -> io::Result<Child> {
    #[cfg(target_os = "linux")]
    if spec.user.is_none() {
        return super::vfork::start(spec);
    }
    let mut inner = command(spec)?.spawn()?;
    let pid = inner.id();
    let pipes = [
        inner.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe))),
        inner.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe))),
        inner.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe))),
    ];
    Ok(Child::new(pid, Process::Std(inner), process_descriptor(pid), pipes))
}

/// The variables of the new program, each once.
pub(super) fn environment(spec: &Spec<'_>) -> BTreeMap<OsString, OsString> {
    let own = [("PATH", PATH), ("LANG", "C")].map(|(name, value)| (name.into(), value.into()));
    let variables = own.into_iter().chain(spec.env.iter().cloned());
    #[cfg(target_os = "linux")]
    let variables =
        variables.chain(spec.group.and_then(Group::mark).map(|(name, value)| (name.into(), value.into())));
    variables.collect()
}

/// By fork: other systems, and other users, whom the standard library knows how to become.
fn command(spec: &Spec<'_>) -> io::Result<Command> {
    #[expect(clippy::disallowed_methods, reason = "one of the two places where processes are started")]
    let mut command = Command::new(spec.program);
    if let Some(name) = &spec.argv0 {
        command.arg0(name);
    }
    command.args(&spec.args).env_clear().envs(environment(spec));
    if let Some(cwd) = spec.cwd {
        command.current_dir(cwd);
    }
    command.stdin(if spec.stdin == Stdin::Pipe { Stdio::piped() } else { Stdio::null() });
    command.stdout(if spec.stdout == Stdout::Pipe { Stdio::piped() } else { Stdio::null() });
    command.stderr(Stdio::piped());
    if let Some((uid, gid)) = spec.user {
        // With root's rights std also drops the supplementary groups.
        command.uid(uid).gid(gid);
    }
    let preparation = Preparation::of(spec)?;
    let prepare = move || Ok(preparation.carry_out()?);
    // SAFETY: the closure runs between fork and exec and makes only direct system calls on values it owns; it
    // neither allocates nor takes locks.
    #[expect(unsafe_code, reason = "code between fork and exec")]
    unsafe {
        command.pre_exec(prepare);
    }
    Ok(command)
}

/// What is set up in the child before it becomes the new program.
#[derive(Debug)]
pub(super) struct Preparation {
    limits: Limits,
    root: bool,
    highest: u64,
    /// What it writes to in order to join its group.
    entrance: Option<File>,
}

impl Preparation {
    pub(super) fn of(spec: &Spec<'_>) -> io::Result<Self> {
        let root = match spec.user {
            Some((uid, _)) => uid == 0,
            None => rustix::process::geteuid().is_root(),
        };
        let highest = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTOR_SEARCH);
        let highest = highest.min(DESCRIPTOR_SEARCH);
        #[cfg(target_os = "linux")]
        let entrance = spec.group.map(Group::entrance).transpose()?.flatten();
        #[cfg(not(target_os = "linux"))]
        let entrance = None;
        Ok(Self { limits: spec.limits.clone(), root, highest, entrance })
    }

    /// What the child needs besides its standard descriptors.
    #[cfg(target_os = "linux")]
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.entrance.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// In the child, before exec.
    pub(super) fn carry_out(&self) -> Result<(), Errno> {
        let limits = &self.limits;
        if let Some(entrance) = &self.entrance {
            // The process that writes joins.
            rustix::io::write(entrance, b"0")?;
        }
        rustix::process::setsid()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
        limit(Resource::Core, Some(0))?;
        limit(Resource::As, limits.memory_bytes)?;
        limit(Resource::Data, limits.data_bytes)?;
        limit(Resource::Fsize, limits.file_bytes)?;
        limit(Resource::Nofile, limits.open_files)?;
        if !self.root {
            limit(Resource::Nproc, limits.processes)?;
        }
        default_signals();
        close_on_exec(self.highest);
        Ok(())
    }
}

fn limit(resource: Resource, value: Option<u64>) -> Result<(), Errno> {
    let Some(value) = value else { return Ok(()) };
    let hard = rustix::process::getrlimit(resource).maximum;
    let value = hard.map_or(value, |hard| value.min(hard));
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
}

/// An ignored or blocked signal stays so over exec; std resets only SIGPIPE.
fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: sets a disposition by number; numbers that do not exist or cannot be set are refused by the
        // kernel without effect.
        #[expect(unsafe_code, reason = "no safe call for it")]
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
    mask_signals(Some(&no_signals()));
}

/// Puts this mask in place of the present one, or one that blocks all; returns the former one.
pub(super) fn mask_signals(mask: Option<&libc::sigset_t>) -> libc::sigset_t {
    let mut every = no_signals();
    let mut before = no_signals();
    // SAFETY: both sets were initialised; the calls read the one and fill the other.
    #[expect(unsafe_code, reason = "no safe call for it")]
    unsafe {
        libc::sigfillset(&raw mut every);
        libc::pthread_sigmask(libc::SIG_SETMASK, mask.unwrap_or(&every), &raw mut before);
    }
    before
}

fn no_signals() -> libc::sigset_t {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call initialises the set it is given; only a null pointer could make it fail.
    #[expect(unsafe_code, reason = "no safe call for it")]
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        none.assume_init()
    }
}

/// Marks every descriptor above 2 instead of closing it: std reports a failing exec through one of them.
fn close_on_exec(highest: u64) {
    #[cfg(target_os = "linux")]
    {
        let (first, last, flags) = (3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: the call takes three integers and touches no memory of ours.
        #[expect(unsafe_code, reason = "not in the C library of old systems")]
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        if done == 0 {
            return;
        }
    }
    for fd in 3..i32::try_from(highest).unwrap_or(i32::MAX) {
        // SAFETY: sets a flag of a descriptor by number; numbers that are not open are refused.
        #[expect(unsafe_code, reason = "the numbers are not ours to own")]
        unsafe {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

#[cfg(target_os = "linux")]
fn process_descriptor(pid: u32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn process_descriptor(_pid: u32) -> Option<OwnedFd> {
    None
}
