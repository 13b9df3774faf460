//! What our own processes use, for the counters that control serves: confined, it can look at no other process itself.

use std::time::Duration;

use ringfence_control::supervisor::{ProcessReport, Usage};

/// How often it is looked at.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// Milliseconds of a tick in which Linux tells processor time to programs, whatever the kernel's own is.
const TICK_MS: u64 = 10;

/// Of the supervisor itself and of those that run.
pub(super) fn of(processes: &[ProcessReport]) -> Vec<Usage> {
    let own = ("up", std::process::id());
    let all = processes.iter().map(|process| (process.name.as_str(), process.pid));
    let look = |(name, pid): (&str, u32)| {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let (cpu_ms, resident) = (cpu(&file("stat")?)?, memory(&file("status")?)?);
        Some(Usage { process: name.to_owned(), cpu_ms, resident })
    };
    std::iter::once(own).chain(all).filter(|(_, pid)| *pid != 0).filter_map(look).collect()
}

/// Milliseconds of processor time: fields 14 and 15 of proc_pid_stat(5). What a program is called may have spaces and brackets, and
/// stands before all of them.
fn cpu(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(") ")?;
    let field = |number: usize| after.split(' ').nth(number - 3)?.parse::<u64>().ok();
    field(14)?.checked_add(field(15)?)?.checked_mul(TICK_MS)
}

/// Bytes of resident memory, from proc_pid_status(5).
fn memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_are_read_whatever_the_program_is_called() {
        assert_eq!(
            cpu("7 (a) b (c) S 1 7 7 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 5 0 100 9999 300"),
            Some(3000)
        );
        assert_eq!((cpu("7 (a) S 1"), cpu("")), (None, None));
        assert_eq!(memory("Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(memory("Name:\tVmRSS\n"), None);
    }

    #[test]
    fn it_looks_at_itself_and_at_nobody_who_is_not_there() {
        let gone = ProcessReport { name: "node".into(), ..ProcessReport::default() };
        let [own] = of(&[gone]).try_into().unwrap();
        assert!(own.process == "up" && own.resident > 0, "{own:?}");
    }
}
