//! From what passed the proxies to the points of a sweep.

use nogo_faults::{HttpPattern, Outcome, Pattern, Point, PostgresPattern, RedisPattern};
use sha2::{Digest as _, Sha256};

use super::plan::SweepPoint;

/// In the order in which a story reaches them.
const ROLES: [&str; 3] = ["api", "worker", "biller"];
/// Characters of a request's words that its name is made from.
const SLUG_MAX: usize = 32;

/// The points that a sweep visits: those that their server carried out, by role and then by time. `idle` is what came
/// while nothing was done. Of that, the first of each kind is visited, whether the story had one or not: how many come
/// before a later one, and whether one falls into the story at all, depends on the clock.
pub(super) fn points_of(listed: &[Point], idle: &[Point]) -> Vec<SweepPoint> {
    let place = |point: &Point| ROLES.iter().position(|known| *known == point.origin.role).unwrap_or(ROLES.len());
    let is_same = |one: &Point, other: &Point| one.origin.role == other.origin.role && one.pattern == other.pattern;
    let recurs = |point: &Point| idle.iter().any(|beat| is_same(beat, point));
    let was_done = |point: &&Point| point.outcome == Some(Outcome::Done);
    let mut visited: Vec<(&Point, bool)> =
        listed.iter().filter(was_done).filter(|point| !recurs(point)).map(|point| (point, false)).collect();
    for beat in idle.iter().filter(was_done) {
        if !visited.iter().any(|(point, _)| is_same(point, beat)) {
            visited.push((beat, true));
        }
    }
    visited.sort_by_key(|(point, recurs)| (place(point), *recurs, point.at_ns));
    let number = |(index, (point, recurs)): (usize, (&Point, bool))| {
        let (role, k) = (point.origin.role.clone(), if recurs { 1 } else { point.k });
        SweepPoint {
            number: index + 1,
            name: format!("{role}/{}#{k}", short_name(&point.pattern)),
            role,
            protocol: point.protocol,
            operation: point.operation.clone(),
            pattern: point.pattern.clone(),
            k,
            recurs,
        }
    };
    visited.into_iter().enumerate().map(number).collect()
}

/// A name that a shell takes as one word. A statement or transaction goes by its hash; what goes by its words has the
/// beginning of a digest behind them, since two scripts may begin alike.
fn short_name(pattern: &Pattern) -> String {
    let words = |parts: &[&Option<String>]| {
        let parts: Vec<&str> = parts.iter().filter_map(|part| part.as_deref()).collect();
        let whole = parts.join(" ");
        let digest = hex::encode(&Sha256::digest(whole.as_bytes())[..3]);
        format!("{}-{digest}", slug(&whole))
    };
    match pattern {
        Pattern::Postgres(PostgresPattern { statement, .. }) => {
            format!("postgres/{}", statement.as_deref().unwrap_or("any"))
        }
        Pattern::Redis(RedisPattern { command, key_prefix, script, .. }) => {
            format!("redis/{}", words(&[command, key_prefix, script]))
        }
        Pattern::Http(HttpPattern { method, path }) => format!("http/{}", words(&[method, path])),
    }
}

/// Lower-case letters and digits with single hyphens between.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for sign in text.chars().take(SLUG_MAX) {
        if sign.is_ascii_alphanumeric() {
            slug.push(sign.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nogo_faults::{Origin, Protocol};

    fn commit(process: &str, hash: &str, k: u64, at_ns: u64) -> Point {
        Point {
            at_ns,
            origin: Origin::of_process(process),
            connection: 0,
            protocol: Protocol::Postgres,
            operation: format!("COMMIT {hash}"),
            pattern: Pattern::Postgres(PostgresPattern { statement: Some(hash.into()), commit: None }),
            k,
            outcome: Some(Outcome::Done),
        }
    }

    #[test]
    fn points_are_numbered_by_role_and_then_by_time() {
        let listed = [commit("worker-1", "aaaaaaaaaaaa", 1, 5), commit("api-1", "bbbbbbbbbbbb", 1, 9)];
        let names: Vec<String> = points_of(&listed, &[]).into_iter().map(|point| point.name).collect();
        assert_eq!(names, ["api/postgres/bbbbbbbbbbbb#1", "worker/postgres/aaaaaaaaaaaa#1"]);
    }

    #[test]
    fn of_what_comes_by_itself_the_first_is_visited_even_if_the_story_had_none() {
        let listed = [2, 3].map(|k| commit("worker-1", "aaaaaaaaaaaa", k, 10 + k));
        let idle = [commit("worker-1", "aaaaaaaaaaaa", 7, 1), commit("api-1", "bbbbbbbbbbbb", 4, 2)];
        let points: Vec<(String, bool)> =
            points_of(&listed, &idle).into_iter().map(|point| (point.name, point.recurs)).collect();
        let expected = [("api/postgres/bbbbbbbbbbbb#1", true), ("worker/postgres/aaaaaaaaaaaa#1", true)];
        assert_eq!(points, expected.map(|(name, recurs)| (name.to_owned(), recurs)));
        assert_eq!(points_of(&listed, &[]).len(), 2, "nothing recurs");
        assert_eq!(
            points_of(&listed, &idle),
            points_of(&listed[1..], &idle),
            "the listing does not depend on the clock"
        );
    }

    #[test]
    fn a_name_is_one_word_and_tells_scripts_apart_that_begin_alike() {
        let script = |text: &str| {
            let of = |text: &str| Some(text.to_owned());
            let (command, key_prefix) = (of("EVALSHA"), of("t:"));
            short_name(&Pattern::Redis(RedisPattern { command, key_prefix, script: of(text), writes: false }))
        };
        let (one, other) = (script("for _, key in ipairs(KEYS) do SET"), script("for _, key in ipairs(KEYS) do DEL"));
        assert!(one.starts_with("redis/evalsha-t-for-key-in-ipairs-"), "{one}");
        assert_ne!(one, other);
        let charge = HttpPattern { method: Some("POST".into()), path: Some("/v1/charges".into()) };
        let charge = short_name(&Pattern::Http(charge));
        assert!(charge.starts_with("http/post-v1-charges-"), "{charge}");
        for name in [one, charge] {
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-')), "{name}");
        }
    }

    #[test]
    fn what_the_server_did_not_do_is_no_point() {
        let mut listed = [commit("api-1", "aaaaaaaaaaaa", 1, 1), commit("api-1", "bbbbbbbbbbbb", 1, 2)];
        listed[0].outcome = Some(Outcome::RolledBack);
        listed[1].outcome = None;
        assert!(points_of(&listed, &[]).is_empty());
    }
}
