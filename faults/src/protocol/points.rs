//! The list of points that a run has passed.

use super::{
    compiled::CompiledPattern,
    grip::Connection,
    observer::{Origin, Point},
    operation::{Operation, Outcome},
    rule::Pattern,
};

/// See the module.
pub(super) struct PointList {
    pub is_listing: bool,
    listed: Vec<Listed>,
    points_max: usize,
    lost: u64,
    /// Entries that were cleared: those that come later stand behind them.
    cleared: usize,
}

/// A request on the list, whole, so that it can be counted against patterns that come up later.
struct Listed {
    at_ns: u64,
    origin: Origin,
    connection: u64,
    operation: Operation,
    outcome: Option<Outcome>,
}

impl PointList {
    pub(super) fn new(points_max: usize) -> Self {
        Self { is_listing: false, listed: Vec::new(), points_max, lost: 0, cleared: 0 }
    }

    /// Enters a request, if points are listed; where it stands.
    pub(super) fn push(&mut self, at_ns: u64, connection: &Connection, operation: &Operation) -> Option<usize> {
        if !self.is_listing {
            return None;
        }
        if self.listed.len() >= self.points_max {
            self.lost += 1;
            return None;
        }
        self.listed.push(Listed {
            at_ns,
            origin: connection.origin.clone(),
            connection: connection.number,
            operation: operation.clone(),
            outcome: None,
        });
        Some(self.cleared + self.listed.len() - 1)
    }

    /// Forgets what is listed.
    pub(super) fn clear(&mut self) {
        self.cleared += self.listed.len();
        self.listed.clear();
        self.lost = 0;
    }

    pub(super) fn set_outcome(&mut self, at: usize, outcome: &Outcome) {
        if let Some(listed) = at.checked_sub(self.cleared).and_then(|at| self.listed.get_mut(at)) {
            listed.outcome = Some(outcome.clone());
        }
    }

    /// The points in order, each with its number among those that its pattern fits, and how many
    /// there was no room for.
    pub(super) fn read(&self) -> (Vec<Point>, u64) {
        let mut points = Vec::with_capacity(self.listed.len());
        let mut counted: Vec<(&str, Pattern, Vec<usize>)> = Vec::new();
        for (at, listed) in self.listed.iter().enumerate() {
            let pattern = listed.operation.pattern();
            let role = listed.origin.role.as_str();
            let known = counted.iter().position(|(of, other, _)| *of == role && *other == pattern);
            let known = known.unwrap_or_else(|| {
                counted.push((role, pattern.clone(), self.matches(role, &pattern)));
                counted.len() - 1
            });
            // A rule counts every request that its pattern fits, so the point does as well.
            let k = counted[known].2.partition_point(|match_at| *match_at <= at);
            points.push(Point {
                at_ns: listed.at_ns,
                origin: listed.origin.clone(),
                connection: listed.connection,
                protocol: pattern.protocol(),
                operation: listed.operation.label(),
                pattern,
                k: k as u64,
                outcome: listed.outcome.clone(),
            });
        }
        (points, self.lost)
    }

    /// Where requests stand that a rule of this role and pattern would count.
    fn matches(&self, role: &str, pattern: &Pattern) -> Vec<usize> {
        let compiled = CompiledPattern::new(Some(role), pattern);
        let all = self.listed.iter().enumerate();
        all.filter(|(_, one)| compiled.matches(&one.origin, &one.operation)).map(|(at, _)| at).collect()
    }
}
