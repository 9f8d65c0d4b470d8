//! From what passed the proxies to the points of a sweep.

use nogo_faults::{Outcome, Pattern, Point, PostgresPattern, RedisPattern};

use super::plan::SweepPoint;

/// In the order in which a story reaches them.
const ROLES: [&str; 3] = ["api", "worker", "biller"];

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

fn short_name(pattern: &Pattern) -> String {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "any".to_owned());
    match pattern {
        Pattern::Postgres(PostgresPattern { statement, .. }) => format!("postgres/{}", known(statement)),
        Pattern::Redis(RedisPattern { command, key_prefix, script, .. }) => {
            let parts: Vec<&str> = [command, script, key_prefix].into_iter().filter_map(Option::as_deref).collect();
            format!("redis/{}", parts.join(" "))
        }
        Pattern::Http(pattern) => format!("http/{} {}", known(&pattern.method), known(&pattern.path)),
    }
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
    fn what_the_server_did_not_do_is_no_point() {
        let mut listed = [commit("api-1", "aaaaaaaaaaaa", 1, 1), commit("api-1", "bbbbbbbbbbbb", 1, 2)];
        listed[0].outcome = Some(Outcome::RolledBack);
        listed[1].outcome = None;
        assert!(points_of(&listed, &[]).is_empty());
    }
}
