//! The sending thread of one connection.
//! Invariant: what is taken from the lane or the spool is on the channel before the next is taken, or the connection ends.

use std::io;
use std::time::Duration;

use tld_sys::clock::{Clock, SystemClock};

use super::lane::{Lane, Work};
use super::link::{Channel, Stamp};
use super::status::Status;
use crate::responder::voice::Voice;
use crate::spool::{Spool, Tail};

/// Events between two looks at the control messages; they leave in one write.
const BATCH: usize = 64;
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest payload that every manager takes.
const PAYLOAD: usize = tld_wire::seal::PAYLOAD_LIMIT;

/// The operator's limit on events in a second.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Option<Duration>,
    next: Duration,
}

impl Pace {
    pub(crate) fn new(rate: Option<u32>) -> Self {
        Self { every: rate.map(|rate| Duration::from_secs(1) / rate.max(1)), next: Duration::ZERO }
    }

    fn left(&self, now: Duration) -> Duration {
        if self.every.is_none() { Duration::ZERO } else { self.next.saturating_sub(now) }
    }

    /// Takes a slot if there is one now. Slots that were not used are not made up for.
    fn take(&mut self, now: Duration) -> bool {
        let Some(every) = self.every else { return true };
        if now < self.next {
            return false;
        }
        self.next = self.next.max(now.saturating_sub(every)) + every;
        true
    }
}

/// Everything that the thread works with.
#[derive(Debug)]
pub(crate) struct Pump<'a> {
    pub(crate) lane: &'a Lane,
    pub(crate) spool: &'a Spool,
    pub(crate) tail: &'a mut Tail,
    pub(crate) pace: &'a mut Pace,
    pub(crate) status: &'a Status,
    pub(crate) channel: &'a Channel,
    pub(crate) stamp: Stamp,
    pub(crate) voice: &'a Voice,
}

impl Pump<'_> {
    /// Sends until the lane is closed or the channel fails.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        loop {
            let wait = match self.pace.left(SystemClock.boot()) {
                Duration::ZERO => PATIENCE,
                left => left.min(PATIENCE),
            };
            let (spool, pace, position) = (self.spool, &*self.pace, self.tail.position());
            let ready = |resume: Option<u64>| {
                spool.head() > resume.unwrap_or(position) && pace.left(SystemClock.boot()).is_zero()
            };
            match self.lane.next(wait, ready) {
                Work::Close => return Ok(()),
                Work::Nothing => {}
                Work::Control(payload) => self.put(&payload, &mut out)?,
                Work::Events(resume) => {
                    if let Some(number) = resume {
                        self.tail.seek(number);
                    }
                    self.events(&mut out)?;
                }
            }
        }
    }

    fn put(&mut self, payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        self.stamp.add(payload, out).map_err(io::Error::other)?;
        self.channel.send(out)
    }

    fn events(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        let mut delivered = None;
        for _ in 0..BATCH {
            if !self.pace.take(SystemClock.boot()) {
                break;
            }
            let Some((number, mut payload)) = self.tail.take()? else { break };
            payload.truncate(PAYLOAD);
            match self.stamp.add(&payload, out) {
                Ok(pair) => delivered = Some(self.lane.sent(number, pair)),
                Err(super::link::StampError::Seal(error)) => {
                    self.voice.error(&format!("an event could not be sealed and was dropped: {error}"));
                    delivered = Some(self.lane.sent(number, self.stamp.last()));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
            self.status.sent();
            if self.channel.is_udp() {
                self.channel.send(out)?;
                out.clear();
            }
            if self.lane.has_urgent() {
                break;
            }
        }
        if !out.is_empty() {
            self.channel.send(out)?;
        }
        if let Some(delivered) = delivered {
            self.spool.release(delivered);
        }
        self.status.reached(self.tail.position());
        match self.tail.take_lost() {
            0 => Ok(()),
            lost => {
                self.voice.error(&format!("{lost} events of the spool could not be read and are lost"));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spreads_events_and_no_rate_holds_none_back() {
        let ms = Duration::from_millis;
        let mut free = Pace::new(None);
        assert!((0..1000).all(|_| free.take(ms(5))));
        let mut slow = Pace::new(Some(100));
        let taken = |slow: &mut Pace, at| (0..10).filter(|_| slow.take(at)).count();
        assert_eq!(taken(&mut slow, ms(1000)), 2);
        assert_eq!(taken(&mut slow, ms(1005)), 0);
        assert_eq!(taken(&mut slow, ms(1010)), 1);
        assert_eq!(slow.left(ms(1015)), ms(5));
    }
}
