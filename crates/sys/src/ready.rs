//! Waiting for descriptors, with a bound.
//!
//! Invariant: an interrupting signal neither shortens nor prolongs a wait.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Deadline;

/// Waits until one of `fds` can be read (data, end of file or an error to collect) or `timeout` has passed.
/// Answers one flag for each descriptor; all false means that time ran out.
pub fn readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    wait(&mut polled, &Deadline::after(timeout))?;
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Polls until something is ready or `deadline` passes; true if something is ready.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: &Deadline) -> io::Result<bool> {
    loop {
        let left = deadline.remaining().map(timespec);
        match poll(fds, left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn only_the_descriptor_with_data_is_ready() {
        let (quiet, _keep) = io::pipe().unwrap();
        let (loud, mut speaker) = io::pipe().unwrap();
        speaker.write_all(b"x").unwrap();
        let ready = readable(&[quiet.as_fd(), loud.as_fd()], Duration::from_secs(10)).unwrap();
        assert_eq!(ready, [false, true]);
    }

    #[test]
    fn silence_ends_with_the_timeout() {
        let (quiet, _keep) = io::pipe().unwrap();
        assert_eq!(readable(&[quiet.as_fd()], Duration::from_millis(1)).unwrap(), [false]);
    }
}
