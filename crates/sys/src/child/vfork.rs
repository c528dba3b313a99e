//! Starting a process without a copy of this one: the child runs in our memory, on a stack of its own, until it execs,
//! while the starting thread waits. A plain fork copies the page tables of everything first, a thousand stacks included,
//! and every page that anyone writes afterwards once more.
//!
//! Invariant: until it execs the child neither allocates, locks nor panics, and changes nothing of ours but the one
//! number that says why it failed.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};

use super::start::{Preparation, environment, mask_signals};
use super::{Child, Process, Spec, Stdin, Stdout};

/// What the child does needs a few kilobytes; pages that are not touched cost nothing.
const STACK: usize = 128 << 10;
const SHELL: &CStr = c"/bin/sh";
const FAILED: c_int = 127;
/// Descriptors that stay with us for long are moved to numbers from here on: what is above need not be copied for a child.
const LONG_LIVED: RawFd = 1_024;

/// Starts it. A file without an interpreter line is given to the shell, as the C library does.
pub(super) fn start(spec: &Spec<'_>) -> io::Result<Child> {
    let nothing = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (mut stdin, mut stdout) = (None, None);
    let input = match spec.stdin {
        Stdin::Null => nothing.try_clone()?,
        Stdin::Pipe => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            stdin = Some(File::from(write));
            read
        }
    };
    let output = match spec.stdout {
        Stdout::Null => nothing,
        Stdout::Pipe => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            stdout = Some(File::from(read));
            write
        }
    };
    let (stderr, errors) = pipe_with(PipeFlags::CLOEXEC)?;
    let theirs = [above(input)?, above(output)?, above(errors)?];
    let words = Words::of(spec)?;
    let preparation = Preparation::of(spec)?;
    let needed =
        theirs.iter().map(AsRawFd::as_raw_fd).chain(preparation.descriptor()).chain(words.descriptors());
    let plan = Plan {
        program: words.program.as_ptr(),
        arguments: pointers(words.arguments.iter()),
        by_shell: pointers([SHELL, &words.program].into_iter().chain(words.further())),
        environment: pointers(words.environment.iter()),
        cwd: words.cwd.as_ref().map(|cwd| cwd.as_ptr()),
        standard: theirs.each_ref().map(AsRawFd::as_raw_fd),
        first_unneeded: needed.fold(LONG_LIVED, |first, fd| first.max(fd.saturating_add(1))),
        preparation,
        errno: AtomicI32::new(0),
    };
    let (pid, pidfd) = clone(&plan)?;
    let pipes =
        [stdin, stdout, Some(File::from(stderr))].map(|pipe| pipe.map(|pipe| high(pipe.into()).into()));
    let pidfd = pidfd.map(high);
    let child = Child::new(pid, Process::Numbered, pidfd, pipes);
    match plan.errno.load(Ordering::Relaxed) {
        0 => Ok(child),
        errno => {
            // Failed before it was anything; its number is free again once it was waited for.
            let pid = pid.cast_signed();
            let _ = rustix::process::waitpid(
                rustix::process::Pid::from_raw(pid),
                rustix::process::WaitOptions::empty(),
            );
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// The child puts its descriptors at 0, 1 and 2 one after the other, so none of them may stand there already.
fn above(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?) }
}

/// Moves one of ours out of the way, where the limit of open files allows it.
fn high(fd: OwnedFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(&fd, LONG_LIVED).unwrap_or(fd)
}

/// The texts of a start, as the kernel wants them.
struct Words {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    cwd: Option<CString>,
}

impl Words {
    fn of(spec: &Spec<'_>) -> io::Result<Self> {
        let name = spec.argv0.as_deref().unwrap_or(spec.program.as_os_str());
        let arguments = std::iter::once(name).chain(spec.args.iter().map(AsRef::as_ref)).map(text);
        let variables = environment(spec).into_iter().map(|(name, value)| {
            let mut both = name;
            both.push("=");
            both.push(value);
            text(&both)
        });
        Ok(Self {
            program: text(spec.program.as_os_str())?,
            arguments: arguments.collect::<io::Result<_>>()?,
            environment: variables.collect::<io::Result<_>>()?,
            cwd: spec.cwd.map(|cwd| text(cwd.as_os_str())).transpose()?,
        })
    }

    /// Descriptors that the program and the directory are named by.
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let texts = [Some(&self.program), self.cwd.as_ref()].into_iter().flatten();
        texts.filter_map(|text| {
            text.to_str().ok()?.strip_prefix("/proc/self/fd/")?.split('/').next()?.parse().ok()
        })
    }

    /// The arguments after the name.
    fn further(&self) -> impl Iterator<Item = &CStr> {
        self.arguments.iter().skip(1).map(AsRef::as_ref)
    }
}

fn text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn pointers<T: AsRef<CStr>>(texts: impl Iterator<Item = T>) -> Vec<*const c_char> {
    texts.map(|text| text.as_ref().as_ptr()).chain(std::iter::once(ptr::null())).collect()
}

/// All that the child reads: pointers into texts that outlive it here.
struct Plan {
    program: *const c_char,
    arguments: Vec<*const c_char>,
    by_shell: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    cwd: Option<*const c_char>,
    standard: [RawFd; 3],
    first_unneeded: RawFd,
    preparation: Preparation,
    /// Why there is no new program; 0 if there is one.
    errno: AtomicI32,
}

/// Returns when the child has become the new program, or has ended.
fn clone(plan: &Plan) -> io::Result<(u32, Option<OwnedFd>)> {
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(STACK / size_of::<u128>());
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: c_int = -1;
    // A handler of ours must not run in the child, where it would act on our memory.
    let before = mask_signals(None);
    // SAFETY: the stack is as long as it says, aligned, and lives until the child has left it, as do the plan and what it
    // points to: with CLONE_VFORK the call returns only then. The child keeps to the module's invariant. The kernel
    // writes a descriptor to the last argument; kernels that do not know the flag leave it alone.
    #[expect(unsafe_code, reason = "no safe call starts a process in shared memory")]
    let pid = unsafe {
        let plan = ptr::from_ref(plan).cast_mut().cast::<c_void>();
        libc::clone(become_program, top.cast::<c_void>(), flags, plan, &raw mut pidfd)
    };
    let error = io::Error::last_os_error();
    mask_signals(Some(&before));
    let pid = u32::try_from(pid).map_err(|_negative| error)?;
    // SAFETY: the kernel made this descriptor for us, and nobody else has seen it.
    #[expect(unsafe_code, reason = "the descriptor comes as a number")]
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok((pid, pidfd))
}

/// The child, until it is another program.
extern "C" fn become_program(plan: *mut c_void) -> c_int {
    // SAFETY: it points to the plan that `clone` holds; nobody writes to it meanwhile but through its atomic number.
    #[expect(unsafe_code, reason = "the C library passes a pointer")]
    let plan = unsafe { &*plan.cast::<Plan>() };
    plan.errno.store(plan.carry_out(), Ordering::Relaxed);
    // SAFETY: ends this process alone and runs nothing of ours on the way.
    #[expect(unsafe_code, reason = "no safe call ends a process without its handlers")]
    unsafe {
        libc::_exit(FAILED)
    }
}

impl Plan {
    /// Returns only if it fails, with the error number.
    fn carry_out(&self) -> i32 {
        if let Err(errno) = self.own_descriptors() {
            return errno;
        }
        for (to, from) in (0..).zip(self.standard) {
            // SAFETY: both are numbers of open descriptors of this process, whose table is its own; 0 to 2 belong to the
            // new program.
            #[expect(unsafe_code, reason = "the numbers are fixed")]
            if unsafe { libc::dup2(from, to) } < 0 {
                return last();
            }
        }
        if let Some(cwd) = self.cwd {
            // SAFETY: a text with an end that `Words` holds.
            #[expect(unsafe_code, reason = "rustix may allocate for a path")]
            if unsafe { libc::chdir(cwd) } < 0 {
                return last();
            }
        }
        if let Err(errno) = self.preparation.carry_out() {
            return errno.raw_os_error();
        }
        // SAFETY: texts and lists with ends that `Words` and the plan hold.
        #[expect(unsafe_code, reason = "no safe call for it")]
        unsafe {
            libc::execve(self.program, self.arguments.as_ptr(), self.environment.as_ptr());
            if last() == libc::ENOEXEC {
                libc::execve(SHELL.as_ptr(), self.by_shell.as_ptr(), self.environment.as_ptr());
            }
        }
        last()
    }
}

impl Plan {
    /// A table of descriptors of its own, without those above: a thousand pipes to children that hang are not copied only
    /// to be closed again. Until then it is ours that it looks at.
    fn own_descriptors(&self) -> Result<(), i32> {
        let (first, flags) = (self.first_unneeded.cast_unsigned(), libc::CLOSE_RANGE_UNSHARE);
        // SAFETY: the calls take integers and touch no memory; both give this process a table of its own or fail.
        #[expect(unsafe_code, reason = "no safe call for them")]
        let failed = unsafe {
            libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) != 0
                && libc::unshare(libc::CLONE_FILES) != 0
        };
        if failed { Err(last()) } else { Ok(()) }
    }
}

fn last() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}
