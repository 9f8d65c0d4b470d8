//! Searches of what the system wrote out: logs and metrics must hold no mark of anybody.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use nogo_invariants::Canaries;
use nogo_invariants::final_state::LeakScan;

/// Bytes searched at once; memory stays bounded for a log of any size.
const CHUNK: usize = 1 << 20;
/// Bytes that two neighbouring chunks share, longer than any mark in any encoding.
const OVERLAP: usize = 512;

/// Searches `text`, e.g. a metrics page, known to the report as `place`.
pub fn scan_text(place: &str, text: &[u8], canaries: &Canaries) -> LeakScan {
    let mut scan = LeakScan { place: place.to_owned(), ..LeakScan::default() };
    add(&mut scan, text, canaries);
    scan.bytes = text.len() as u64;
    scan
}

/// Searches a file, e.g. a process's log. A mark on a seam of two chunks may count twice; it is a leak either way.
///
/// # Errors
/// Where the file cannot be read: a place that was not searched is not clean.
pub fn scan_file(place: &str, path: &Path, canaries: &Canaries) -> anyhow::Result<LeakScan> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut scan = LeakScan { place: place.to_owned(), ..LeakScan::default() };
    let mut window: Vec<u8> = Vec::with_capacity(CHUNK + OVERLAP);
    loop {
        let kept = window.len().min(OVERLAP);
        window.drain(..window.len() - kept);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut window).with_context(|| format!("read {place}"))?;
        if read == 0 {
            return Ok(scan);
        }
        scan.bytes += read as u64;
        add(&mut scan, &window, canaries);
    }
}

fn add(scan: &mut LeakScan, bytes: &[u8], canaries: &Canaries) {
    for (owner, fields) in canaries.search(bytes).owners {
        for (field, count) in fields {
            *scan.found.entry(field.to_owned()).or_default() += count;
        }
        if !scan.owners_found.contains(&owner) {
            scan.owners_found.push(owner);
        }
    }
    scan.owners_found.sort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use nogo_invariants::canary::Field;

    #[test]
    fn an_address_in_a_log_is_found_even_across_a_seam() {
        let mut canaries = Canaries::new("1");
        canaries.plant(3);
        let mut text = vec![b'x'; CHUNK - 10];
        text.extend_from_slice(canaries.mark(3, Field::Email).as_bytes());
        text.extend_from_slice(b"@example.test");
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("api-1.log");
        std::fs::write(&path, &text).expect("write");
        let scan = scan_file("log:api-1", &path, &canaries).expect("scan");
        assert_eq!(scan.bytes, text.len() as u64);
        assert_eq!(scan.owners_found, ["T0003"]);
        assert!(scan.found["email"] >= 1);
    }

    #[test]
    fn a_clean_place_is_still_listed_with_its_bytes() {
        let scan = scan_text("metrics:api-1", b"up 1\n", &Canaries::new("1"));
        assert_eq!((scan.bytes, scan.found.len()), (5, 0));
    }

    #[test]
    fn a_missing_log_is_an_error_and_not_clean() {
        assert!(scan_file("log:api-1", Path::new("/nonexistent/log"), &Canaries::new("1")).is_err());
    }
}
