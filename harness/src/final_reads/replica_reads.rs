//! How many reads a replica has answered, as the system counts them: exposure of what is said about lag.

/// The counter, up to the replica's name.
const COUNTER: &str = "forecastle_reads_total{target=\"";

/// Reads that `replica` has answered for the process whose metrics page this is; 0 if it names none.
#[must_use]
pub fn reads_of(replica: &str, page: &str) -> u64 {
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(COUNTER)?.split_once("\"} "));
    lines.find(|(target, _)| *target == replica).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replicas_reads_are_found_by_its_whole_name() {
        let page = "# TYPE forecastle_reads_total counter\nforecastle_reads_total{target=\"primary\"} 7\n\
                    forecastle_reads_total{target=\"replica-1\"} 41\n";
        assert_eq!(reads_of("replica-1", page), 41);
        assert_eq!(reads_of("replica", page), 0);
        assert_eq!(reads_of("replica-2", page), 0);
    }
}
