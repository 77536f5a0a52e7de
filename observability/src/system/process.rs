//! Parsers of the `/proc` files. Each takes the file's text and gives what it could find.

/// From `/proc/self/stat`, in the kernel's own units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// User and system time in clock ticks.
    pub(crate) cpu_ticks: u64,
    pub(crate) threads: u64,
    /// Start in clock ticks after boot.
    pub(crate) start_ticks: u64,
    pub(crate) virtual_bytes: u64,
    pub(crate) resident_pages: u64,
}

pub(crate) fn stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in brackets and may itself hold brackets and blanks.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<u64> =
        rest.split_ascii_whitespace().skip(1).map(|f| f.parse().unwrap_or(0)).collect();
    // `fields[0]` is field 4 (the parent) of proc(5).
    let field = |number: usize| fields.get(number - 4).copied();
    Some(Stat {
        cpu_ticks: field(14)?.saturating_add(field(15)?),
        threads: field(20)?,
        start_ticks: field(22)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// Seconds since 1970 at which the machine started, from `/proc/stat`.
pub(crate) fn boot_seconds(text: &str) -> Option<u64> {
    line(text, "btime ")?.trim().parse().ok()
}

/// The soft limit of open files, from `/proc/self/limits`; `None` when unlimited.
pub(crate) fn max_fds(text: &str) -> Option<u64> {
    line(text, "Max open files")?.split_ascii_whitespace().next()?.parse().ok()
}

/// How many CPUs the process may run on, from `/proc/self/status`.
pub(crate) fn allowed_cpus(text: &str) -> Option<u64> {
    let mut cpus = 0_u64;
    for part in line(text, "Cpus_allowed_list:")?.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        cpus = cpus.saturating_add(last.checked_sub(first)?.saturating_add(1));
    }
    (cpus > 0).then_some(cpus)
}

/// Total and available bytes of the machine, from `/proc/meminfo`.
pub(crate) fn machine_memory(text: &str) -> Option<(u64, u64)> {
    let bytes = |key| -> Option<u64> {
        let kib: u64 = line(text, key)?.split_ascii_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1_024)
    };
    Some((bytes("MemTotal:")?, bytes("MemAvailable:")?))
}

/// What follows `key` on the line that begins with it.
pub(super) fn line<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "13950 (a (odd) na me) R 13942 13942 5990 0 -1 4194304 97 0 0 0 250 50 0 0 \
        20 0 7 0 131646 3133440 360 18446744073709551615 1 1 1 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0";

    #[test]
    fn stat_survives_an_odd_program_name() {
        let expected = Stat {
            cpu_ticks: 300,
            threads: 7,
            start_ticks: 131_646,
            virtual_bytes: 3_133_440,
            resident_pages: 360,
        };
        assert_eq!(stat(STAT), Some(expected));
        assert_eq!(stat("13950 (cat) R 1 2"), None);
        assert_eq!(stat(""), None);
    }

    #[test]
    fn single_lines_are_found() {
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1795324500\nprocesses 7\n"), Some(1_795_324_500));
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files  20000  30000  files\n";
        assert_eq!(max_fds(limits), Some(20_000));
        assert_eq!(max_fds("Max open files  unlimited  unlimited  files\n"), None);
        assert_eq!(
            machine_memory("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:  60 kB\n"),
            Some((102_400, 61_440))
        );
        assert_eq!(machine_memory("MemTotal:  100 kB\n"), None);
    }

    #[test]
    fn cpu_lists_are_counted() {
        for (list, cpus) in [
            ("0-1", Some(2)),
            ("3", Some(1)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("1-0", None),
            ("x", None),
        ] {
            assert_eq!(allowed_cpus(&format!("Name:\tx\nCpus_allowed_list:\t{list}\n")), cpus);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let text = format!("{text}) {text}\nCpus_allowed_list:{text}\nMax open files {text}");
            let _ = (stat(&text), boot_seconds(&text), max_fds(&text), allowed_cpus(&text));
            let _ = machine_memory(&text);
        }
    }
}
