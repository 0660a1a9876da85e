//! What this process costs its host, as the kernel says.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Time on the processors since the start, in user space and in the kernel,
/// all threads together.
pub(super) fn cpu() -> Duration {
    // Neither part is ever negative.
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

/// Bytes of memory in use; `None` where `/proc` does not say.
pub(super) fn resident() -> Option<u64> {
    resident_in(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The kernel's `kB` are of 1024 bytes (proc(5), `/proc/pid/status`).
fn resident_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_kernel_s_resident_set() {
        let status = "Name:\ttidings\nVmHWM:\t   9000 kB\nVmRSS:\t   5124 kB\nThreads:\t4\n";
        assert_eq!(resident_in(status), Some(5124 * 1024));
        assert_eq!(resident_in("Name:\ttidings\n"), None);
        assert!(resident().unwrap() > 100_000);
    }

    #[test]
    fn work_takes_time_on_the_processor() {
        let before = cpu();
        while cpu() == before {
            std::hint::spin_loop();
        }
    }
}
