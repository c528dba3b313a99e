//! What this process has used of the machine, for figures that people compare. Invariant: zero where the system does not tell.

use std::time::Duration;

/// Processor time of all threads of this process, user and system.
pub fn processor() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanos.min(999_999_999))
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

/// Memory of this process.
pub fn memory() -> Memory {
    let status = crate::durable::read_bounded(std::path::Path::new("/proc/self/status"), 1 << 16);
    memory_in(&String::from_utf8_lossy(&status.unwrap_or_default()))
}

fn memory_in(status: &str) -> Memory {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Memory { resident: field("VmRSS:").unwrap_or(0) << 10, peak: field("VmHWM:").unwrap_or(0) << 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(memory_in(status), Memory { resident: 1 << 20, peak: 2 << 20 });
        assert_eq!(memory_in(""), Memory::default());
    }
}
