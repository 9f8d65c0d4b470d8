//! Marks planted in every free-text field, so that whose data an answer holds can be read off it.
//!
//! `cnry-<ordinal>-<field>-<proof>`: the tenant's ordinal in four letters of base32, the field's
//! name, and 16 hex digits of SHA-256 over seed, ordinal and field. All lower case, so that a mark
//! is a valid local part of an e-mail address and survives case folding. A search sees a mark
//! written plainly, in any case, percent-encoded, as base64 (either alphabet, any alignment), as
//! hex digits, or with JSON `\u` escapes. Not for deciding what a find means: that is a law's part.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::history::Scan;

/// Every mark begins so.
const PREFIX: &[u8] = b"cnry-";

/// Hex digits of the proof.
const PROOF_DIGITS: usize = 16;

/// Letters of the ordinal: 32^4 tenants.
const ORDINAL_LETTERS: usize = 4;

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What kind of text a mark stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Organisation's name.
    Organization,
    /// A person's name.
    Person,
    /// Local part of an e-mail address.
    Email,
    /// A password.
    Password,
    /// A scenario's name.
    Scenario,
    /// A scenario's notes.
    Notes,
    /// Name of a revenue or cost line.
    Line,
}

impl Field {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Organization, Self::Person, Self::Email, Self::Password, Self::Scenario, Self::Notes, Self::Line];

    /// As it stands in a mark; lower-case letters only.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organization => "org",
            Self::Person => "person",
            Self::Email => "email",
            Self::Password => "password",
            Self::Scenario => "scenario",
            Self::Notes => "notes",
            Self::Line => "line",
        }
    }
}

/// The marks of one run.
#[derive(Debug, Clone)]
pub struct Canaries {
    seed: String,
    /// Ordinal to label, for tenants that were planted.
    labels: BTreeMap<u32, String>,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Labels of owners, with how often a mark of each field occurs.
    pub owners: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Things that look like a mark and are none of this run's.
    pub unverified: u64,
}

impl Found {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.unverified == 0
    }

    /// The form in which it is recorded.
    pub fn into_scan(self, bytes: u64, tenants_with_data: u64) -> Scan {
        let fields: BTreeSet<&str> = self.owners.values().flat_map(|fields| fields.keys().copied()).collect();
        Scan {
            bytes,
            fields: fields.into_iter().map(str::to_owned).collect(),
            owners_found: self.owners.into_keys().collect(),
            unverified: self.unverified,
            tenants_with_data,
        }
    }
}

/// The label of a tenant by its ordinal: `T0007`.
pub fn label(ordinal: u32) -> String {
    format!("T{ordinal:04}")
}

impl Canaries {
    /// The marks of the run with this seed; none is planted yet.
    pub fn new(seed: impl Into<String>) -> Self {
        Self { seed: seed.into(), labels: BTreeMap::new() }
    }

    /// Takes note that the tenant of this ordinal (below 32^4) exists, and gives its label.
    pub fn plant(&mut self, ordinal: u32) -> String {
        self.labels.entry(ordinal).or_insert_with(|| label(ordinal)).clone()
    }

    /// Tenants planted so far.
    pub fn planted(&self) -> u64 {
        self.labels.len() as u64
    }

    /// The mark of a tenant's field, 32 to 36 bytes of `[a-z0-9-]`.
    pub fn mark(&self, ordinal: u32, field: Field) -> String {
        mark(&self.seed, ordinal, field.name())
    }

    /// Searches bytes in all encodings. Time linear in their length.
    pub fn search(&self, bytes: &[u8]) -> Found {
        let mut seen = Sightings { marks: BTreeMap::new() };
        seen.plain(bytes);
        if let Some(decoded) = percent_decoded(bytes) {
            seen.plain(&decoded);
        }
        if let Some(decoded) = unicode_unescaped(bytes) {
            seen.plain(&decoded);
        }
        for decoded in hex_decoded(bytes).into_iter().chain(base64_decoded(bytes)) {
            seen.plain(&decoded);
        }
        self.attribute(seen)
    }

    fn attribute(&self, seen: Sightings) -> Found {
        let mut found = Found::default();
        for (text, count) in seen.marks {
            match self.owner(&text) {
                Some((label, field)) => {
                    *found.owners.entry(label).or_default().entry(field).or_default() += count;
                }
                None => found.unverified += count,
            }
        }
        found
    }

    fn owner(&self, text: &str) -> Option<(String, &'static str)> {
        let mut parts = text.split('-').skip(1);
        let (ordinal, field) = (ordinal_of(parts.next()?)?, parts.next()?);
        let field = Field::ALL.into_iter().find(|known| known.name() == field)?.name();
        let label = self.labels.get(&ordinal)?;
        (mark(&self.seed, ordinal, field) == text).then(|| (label.clone(), field))
    }
}

fn mark(seed: &str, ordinal: u32, field: &str) -> String {
    let letters: String =
        (0..ORDINAL_LETTERS).rev().map(|place| char::from(BASE32[(ordinal >> (5 * place)) as usize & 31])).collect();
    let digest = hex::encode(Sha256::digest(format!("{seed}\n{ordinal}\n{field}").as_bytes()));
    format!("cnry-{letters}-{field}-{}", &digest[..PROOF_DIGITS])
}

fn ordinal_of(letters: &str) -> Option<u32> {
    if letters.len() != ORDINAL_LETTERS {
        return None;
    }
    letters.bytes().try_fold(0u32, |sum, letter| {
        let digit = BASE32.iter().position(|known| *known == letter)?;
        Some(sum * 32 + digit as u32)
    })
}

/// Marks by text, with how often each was seen (in its most frequent encoding).
struct Sightings {
    marks: BTreeMap<String, u64>,
}

impl Sightings {
    /// Finds marks written plainly, in any case. A mark cut off counts as what is left of it.
    fn plain(&mut self, bytes: &[u8]) {
        let mut here: BTreeMap<String, u64> = BTreeMap::new();
        let mut at = 0;
        while let Some(start) = find_ignoring_case(bytes, PREFIX, at) {
            let rest = &bytes[start + PREFIX.len()..];
            let length = mark_length(rest);
            let text = bytes[start..start + PREFIX.len() + length].to_ascii_lowercase();
            *here.entry(String::from_utf8_lossy(&text).into_owned()).or_default() += 1;
            at = start + PREFIX.len();
        }
        for (text, count) in here {
            let known = self.marks.entry(text).or_default();
            *known = (*known).max(count);
        }
    }
}

/// Bytes of `letters-field-digits`, as far as they go.
fn mark_length(rest: &[u8]) -> usize {
    let mut dashes = 0;
    let mut digits = 0;
    for (index, byte) in rest.iter().enumerate() {
        match byte {
            b'-' if dashes < 2 => dashes += 1,
            b if dashes == 2 && digits < PROOF_DIGITS && b.is_ascii_hexdigit() => digits += 1,
            b if dashes < 2 && b.is_ascii_alphanumeric() => {}
            _ => return index,
        }
    }
    rest.len()
}

fn find_ignoring_case(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let (low, high) = (needle[0].to_ascii_lowercase(), needle[0].to_ascii_uppercase());
    let mut at = from;
    while at + needle.len() <= bytes.len() {
        let step = bytes[at..].iter().position(|byte| *byte == low || *byte == high)?;
        at += step;
        if bytes.get(at..at + needle.len())?.eq_ignore_ascii_case(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn percent_decoded(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.contains(&b'%') {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = (bytes.get(at + 1).copied().and_then(hex_digit), bytes.get(at + 2).copied().and_then(hex_digit));
        match (bytes[at], pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high * 16 + low);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Some(out)
}

fn unicode_unescaped(bytes: &[u8]) -> Option<Vec<u8>> {
    find_ignoring_case(bytes, b"\\u00", 0)?;
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 2..at + 6).filter(|_| bytes[at] == b'\\' && matches!(bytes[at + 1], b'u' | b'U'));
        let code = digits.and_then(|digits| {
            digits.iter().try_fold(0u32, |sum, digit| Some(sum * 16 + u32::from(hex_digit(*digit)?)))
        });
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 6;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Some(out)
}

/// What follows each place where the prefix stands as hex digits, decoded; of either case.
fn hex_decoded(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut runs = Vec::new();
    for needle in [hex::encode(PREFIX), hex::encode(PREFIX.to_ascii_uppercase())] {
        let mut at = 0;
        while let Some(start) = find_ignoring_case(bytes, needle.as_bytes(), at) {
            let digits: Vec<u8> = bytes[start..].iter().map_while(|byte| hex_digit(*byte)).take(128).collect();
            runs.push(digits.chunks_exact(2).map(|pair| pair[0] * 16 + pair[1]).collect());
            at = start + needle.len();
        }
    }
    runs
}

/// Bytes before a hit in base64 that are decoded too, and after it.
const BASE64_AROUND: usize = 128;

/// The surroundings of each place where the prefix stands as base64, decoded.
fn base64_decoded(bytes: &[u8]) -> Vec<Vec<u8>> {
    // What is left of the encoded prefix where it does not depend on its neighbours, for the three
    // alignments: "cnry-" at offset 0, 1 and 2 of a group; and the same for capitals.
    const NEEDLES: [&[u8]; 6] = [b"Y25yeS", b"Nucnkt", b"jbnJ5L", b"Q05SWS", b"NOUlkt", b"DTlJZL"];
    let mut runs = Vec::new();
    for needle in NEEDLES {
        // The first or last character shares bits with a neighbour in some alignments: match the core.
        let core = &needle[..needle.len() - 1];
        let mut at = 0;
        while let Some(step) = bytes.get(at..).and_then(|rest| rest.windows(core.len()).position(|w| w == core)) {
            let hit = at + step;
            let from = hit.saturating_sub(BASE64_AROUND);
            let before = bytes[from..hit].iter().rev().take_while(|byte| base64_digit(**byte).is_some()).count();
            let run: Vec<u8> = bytes[hit - before..]
                .iter()
                .map_while(|byte| base64_digit(*byte))
                .take(before + BASE64_AROUND)
                .collect();
            for phase in 0..4.min(run.len()) {
                runs.push(base64_bytes(&run[phase..]));
            }
            at = hit + core.len();
        }
    }
    runs
}

fn base64_digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

fn base64_bytes(digits: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len().max(1)]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted() -> Canaries {
        let mut canaries = Canaries::new("5eed");
        canaries.plant(7);
        canaries.plant(40_000);
        canaries
    }

    fn owners(canaries: &Canaries, bytes: &[u8]) -> Vec<String> {
        canaries.search(bytes).owners.into_keys().collect()
    }

    fn base64(bytes: &[u8], alphabet_end: [u8; 2]) -> Vec<u8> {
        let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(alphabet_end).collect();
        let mut out = Vec::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for place in 0..=group.len() {
                out.push(alphabet[(bits >> (18 - 6 * place)) as usize & 63]);
            }
        }
        out
    }

    #[test]
    fn a_mark_names_its_tenant_and_field() {
        let canaries = planted();
        let text = format!("{{\"notes\":\"see {} there\"}}", canaries.mark(7, Field::Notes));
        let found = canaries.search(text.as_bytes());
        assert_eq!(found.owners["T0007"], BTreeMap::from([("notes", 1)]));
        assert_eq!(found.unverified, 0);
    }

    #[test]
    fn every_encoding_is_seen_through() {
        let canaries = planted();
        for field in Field::ALL {
            let mark = canaries.mark(40_000, field);
            let percent: String = mark.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let escaped: String = mark.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
            let mut texts = vec![
                mark.clone().into_bytes(),
                mark.to_ascii_uppercase().into_bytes(),
                percent.into_bytes(),
                escaped.into_bytes(),
                format!("x:{}", hex::encode(&mark)).into_bytes(),
                hex::encode_upper(mark.to_ascii_uppercase()).into_bytes(),
            ];
            for before in ["", "a", "ab", "abc", "abcd"] {
                for alphabet_end in [*b"+/", *b"-_"] {
                    let inner = format!("{before}{mark} and {mark}!");
                    let outer = [b"{\"c\":\"".to_vec(), base64(inner.as_bytes(), alphabet_end), b"\"}".to_vec()];
                    texts.push(outer.concat());
                    texts.push(base64(format!("{before}{}", mark.to_ascii_uppercase()).as_bytes(), alphabet_end));
                }
            }
            for text in texts {
                assert_eq!(owners(&canaries, &text), ["T40000"], "{}", String::from_utf8_lossy(&text));
            }
        }
    }

    #[test]
    fn a_mark_of_another_run_or_of_nobody_is_not_attributed() {
        let canaries = planted();
        let other = Canaries::new("other").mark(7, Field::Notes);
        let unplanted = canaries.mark(8, Field::Notes);
        let cut = &canaries.mark(7, Field::Notes)[..20];
        for text in [other.as_str(), unplanted.as_str(), cut] {
            let found = canaries.search(text.as_bytes());
            assert!(found.owners.is_empty(), "{text}");
            assert_eq!(found.unverified, 1, "{text}");
        }
    }

    #[test]
    fn text_without_a_mark_holds_none() {
        let canaries = planted();
        for text in ["", "c", "cnry", "%", "%6", "\\u00", "\\u006", "C-N-R-Y-", "Y25ye", "636e7279"] {
            assert!(canaries.search(text.as_bytes()).is_empty(), "{text}");
        }
    }

    #[test]
    fn marks_differ_by_tenant_field_and_seed_and_fit_an_address() {
        let (canaries, other) = (planted(), Canaries::new("5eee"));
        let mut seen = BTreeSet::new();
        for ordinal in [0, 7, 31, 32, 40_000, 1_048_575] {
            for field in Field::ALL {
                let mark = canaries.mark(ordinal, field);
                assert!(
                    mark.len() <= 40 && mark.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                );
                assert!(seen.insert(mark) && seen.insert(other.mark(ordinal, field)));
            }
        }
    }
}
