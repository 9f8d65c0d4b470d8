//! Rules as data: what is measured, when it is too much, for how long, and how bad that is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rules that come with the binary.
pub const BUILT_IN: &str = include_str!("rules.toml");

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth looking at today.
    Warning,
    /// Somebody has to act now.
    Critical,
}

/// Samples of one metric whose labels are as given; a value that ends in `*` stands for all that begin so,
/// one that begins with `!` for all others.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// What a rule looks at. All are measured per instance.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Signal {
    /// 1 while the instance does not answer `/metrics`, else 0.
    Gone,
    /// 1 while the instance answers, but says by `/readyz` that it is not ready, else 0.
    NotReady,
    /// The largest sample.
    Largest { of: Selector },
    /// The smallest sample.
    Smallest { of: Selector },
    /// The largest sample over the sum of another metric's.
    Share { of: Selector, within: Selector },
    /// Growth over the window, per second.
    Rate { of: Selector },
    /// Growth over the window, over another metric's; nothing where that grew by less than `least`.
    Ratio { of: Selector, within: Selector, least: f64 },
    /// Upper bound of the histogram's bucket that the quantile `q` of the window's values lies in;
    /// nothing where there were fewer than `least`.
    Quantile { of: Selector, q: f64, least: f64 },
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) summary: String,
    pub(crate) severity: Severity,
    /// How long the condition must hold before the alert fires, seconds.
    pub(crate) for_s: u64,
    /// What rates, ratios and quantiles look back on, seconds.
    #[serde(default = "one_minute")]
    pub(crate) window_s: u64,
    /// Holds where the signal is larger.
    pub(crate) above: Option<f64>,
    /// Holds where the signal is smaller.
    pub(crate) below: Option<f64>,
    pub(crate) signal: Signal,
}

const fn one_minute() -> u64 {
    60
}

impl Rule {
    pub(crate) fn holds(&self, value: f64) -> bool {
        self.above.is_some_and(|limit| value > limit) || self.below.is_some_and(|limit| value < limit)
    }
}

/// A file of rules does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRules {
    /// Not TOML, or not of the form.
    #[error("rules do not read: {0}")]
    Form(String),
    /// A rule that can never hold or holds twice.
    #[error("rule {name}: {what}")]
    Rule {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Rule>,
    /// Names of built-in rules that are not wanted.
    #[serde(default)]
    without: Vec<String>,
}

/// The rules in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub(crate) all: Vec<Rule>,
}

impl Rules {
    /// The built-in ones, each replaced by the rule of its name in `overrides`, with that text's further
    /// ones, and without those it lists under `without`.
    ///
    /// # Errors
    /// Where the text does not read, or names a built-in rule that does not exist.
    pub fn read(overrides: Option<&str>) -> Result<Self, BadRules> {
        let mut all = parse(BUILT_IN)?.rule;
        if let Some(text) = overrides {
            let file = parse(text)?;
            for name in file.without {
                let before = all.len();
                all.retain(|rule| rule.name != name);
                if all.len() == before {
                    return Err(BadRules::Rule { name, what: "no such built-in rule" });
                }
            }
            for rule in file.rule {
                all.retain(|built_in| built_in.name != rule.name);
                all.push(rule);
            }
        }
        Ok(Self { all })
    }

    /// The longest that any rule looks back.
    pub(crate) fn window_max(&self) -> Duration {
        Duration::from_secs(self.all.iter().map(|rule| rule.window_s).max().unwrap_or(0))
    }
}

fn parse(text: &str) -> Result<File, BadRules> {
    let file: File = toml::from_str(text).map_err(|error| BadRules::Form(error.message().to_owned()))?;
    let mut names = BTreeSet::new();
    for rule in &file.rule {
        let bad = |what| Err(BadRules::Rule { name: rule.name.clone(), what });
        if !names.insert(&rule.name) {
            return bad("there are two of this name");
        }
        if rule.above.is_some() == rule.below.is_some() {
            return bad("give one of above and below");
        }
        if rule.window_s == 0 {
            return bad("window_s is at least 1");
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_replaces_its_rule_and_leaves_the_others() {
        let built_in = Rules::read(None).unwrap();
        let text = "without = [\"latency_p95\"]\n[[rule]]\nname = \"error_rate\"\nsummary = \"s\"\nseverity = \"info\"\n\
                    for_s = 1\nabove = 0.5\nsignal = { kind = \"gone\" }\n";
        let changed = Rules::read(Some(text)).unwrap();
        assert_eq!(changed.all.len(), built_in.all.len() - 1);
        let of = |rules: &Rules| rules.all.iter().find(|rule| rule.name == "error_rate").cloned().unwrap();
        assert_eq!(of(&changed).severity, Severity::Info);
        assert_eq!(of(&built_in).severity, Severity::Critical);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused_by_name() {
        let rule =
            "[[rule]]\nname = \"x\"\nsummary = \"s\"\nseverity = \"info\"\nfor_s = 1\nsignal = { kind = \"gone\" }\n";
        let what = |text: &str| Rules::read(Some(text)).unwrap_err().to_string();
        assert_eq!(what(rule), "rule x: give one of above and below");
        let twice = format!("{rule}above = 1.0\n").repeat(2);
        assert!(what(&twice).contains("do not read") || what(&twice).contains("two of this name"));
        assert_eq!(what("without = [\"nothing\"]"), "rule nothing: no such built-in rule");
        assert!(what("[[rule]]\nname = 7").starts_with("rules do not read"));
    }
}
