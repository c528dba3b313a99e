//! How full the client buffer counts as (wire contract 4.3), and the event that each change of it is worth. What is beyond
//! the buffer waits in the spool here, so a full one says that the manager gets events late, not that they are lost.
//! Invariant: one event for each change, never one for each look.

use std::time::Duration;

use tld_config::{ClientBuffer, InternalOptions};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Normal,
    Warning,
    Full,
    Flood,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Levels {
    size: u64,
    warning: u64,
    normal: u64,
    tolerance: Duration,
    level: Level,
    full_since: Duration,
}

impl Levels {
    /// None where the buffer is disabled.
    pub(super) fn new(buffer: &ClientBuffer, options: &InternalOptions) -> Option<Self> {
        let size = u64::from(buffer.queue_size);
        let part = |name: &str, default: u32| size * u64::from(options.value(name).unwrap_or(default)) / 100;
        (!buffer.disabled).then(|| Self {
            size,
            warning: part("agent.warn_level", 90).max(1),
            normal: part("agent.normal_level", 70),
            tolerance: Duration::from_secs(options.value("agent.tolerance").unwrap_or(15).into()),
            level: Level::Normal,
            full_since: Duration::ZERO,
        })
    }

    /// So many events wait now; the event to send if that is news.
    pub(super) fn look(&mut self, waiting: u64, now: Duration) -> Option<Vec<u8>> {
        let next = match self.level {
            _ if waiting <= self.normal => Level::Normal,
            Level::Normal | Level::Warning if waiting >= self.size => Level::Full,
            Level::Normal if waiting >= self.warning => Level::Warning,
            Level::Full if waiting >= self.size && now.saturating_sub(self.full_since) >= self.tolerance => {
                Level::Flood
            }
            Level::Full | Level::Flood if waiting <= self.warning => Level::Warning,
            same => same,
        };
        if std::mem::replace(&mut self.level, next) == next {
            return None;
        }
        let word = match next {
            Level::Normal => "normal",
            Level::Warning => "90%",
            Level::Full => {
                self.full_since = now;
                "full"
            }
            Level::Flood => "flooded",
        };
        Some(format!("1:wazuh-agent:wazuh: Agent buffer: '{word}'.").into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_in_the_contracts_words() {
        let buffer = ClientBuffer { queue_size: 100, ..ClientBuffer::default() };
        let mut levels = Levels::new(&buffer, &InternalOptions::default()).unwrap();
        let mut told = Vec::new();
        for (waiting, secs) in [
            (10, 0),
            (90, 1),
            (95, 2),
            (100, 3),
            (500, 10),
            (500, 18),
            (500, 19),
            (91, 20),
            (90, 21),
            (71, 22),
            (70, 23),
        ] {
            let said = levels.look(waiting, Duration::from_secs(secs));
            told.extend(said.map(|text| (waiting, String::from_utf8(text).unwrap())));
        }
        let words: Vec<_> =
            told.iter().map(|(waiting, text)| (*waiting, text.split('\'').nth(1).unwrap())).collect();
        assert_eq!(words, [(90, "90%"), (100, "full"), (500, "flooded"), (90, "90%"), (70, "normal")]);
        assert!(told[0].1.starts_with("1:wazuh-agent:wazuh: Agent buffer: "));
    }

    #[test]
    fn a_disabled_buffer_says_nothing() {
        let buffer = ClientBuffer { disabled: true, ..ClientBuffer::default() };
        assert!(Levels::new(&buffer, &InternalOptions::default()).is_none());
    }
}
