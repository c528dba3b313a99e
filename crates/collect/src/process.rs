//! Reading what a child writes until it ends, its time is up, or the collector stops.
//!
//! Invariant: no child outlives [`pump`].

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use tld_sys::child::{Child, Spec, Stdout, spawn};
use tld_sys::clock::Deadline;
use tld_sys::ready::readable;

use crate::outlet::{Closed, Outlet};

/// How soon a stop is noticed.
const GLANCE: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(2);

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit status as text, or what we did to it.
    pub(crate) how: String,
    /// The end of what it said on stderr, one line.
    pub(crate) stderr: String,
}

/// Runs a child and hands over its output in chunks.
pub(crate) fn pump(
    spec: &Spec<'_>,
    timeout: Duration,
    outlet: &Outlet,
    mut each: impl FnMut(&[u8]) -> Result<(), Closed>,
) -> io::Result<Ended> {
    let spec = Spec { stdout: Stdout::Pipe, ..spec.clone() };
    let deadline = Deadline::after(timeout);
    let mut child = spawn(&spec)?;
    let mut stdout = child.stdout.take();
    let mut buffer = vec![0; 65_536];
    let mut cut = None;
    while let Some(pipe) = &mut stdout {
        if outlet.stopping() {
            cut = Some("stopped");
        } else if deadline.passed() {
            cut = Some("took too long");
        }
        if cut.is_some() {
            break;
        }
        let ready = readable(&[pipe.as_fd()], GLANCE)?;
        child.stderr_tail();
        if !ready.contains(&true) {
            // A descendant that holds the pipe open does not keep us once the child is gone.
            if child.try_wait()?.is_some() {
                break;
            }
            continue;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => stdout = None,
            Ok(count) => {
                if each(buffer.get(..count).unwrap_or_default()).is_err() {
                    cut = Some("stopped");
                    break;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => stdout = None,
        }
    }
    end(&mut child, cut)
}

fn end(child: &mut Child, cut: Option<&str>) -> io::Result<Ended> {
    let mut status = if cut.is_some() { None } else { child.wait_deadline(LAST_WAIT)? };
    if status.is_none() {
        child.kill_group()?;
        status = child.wait_deadline(LAST_WAIT)?;
    }
    let how = match (cut, status) {
        (Some(cut), _) => cut.to_owned(),
        (None, Some(status)) => status.to_string(),
        (None, None) => "cannot be killed".to_owned(),
    };
    let stderr = String::from_utf8_lossy(child.stderr_tail()).trim().replace('\n', "; ");
    Ok(Ended { how, stderr })
}
