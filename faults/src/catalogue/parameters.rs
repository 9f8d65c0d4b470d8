//! What a schedule may say of a fault beyond victim and time: names, bounds, defaults.

use std::collections::BTreeMap;

use super::FaultRow;
use crate::schedule::ParamValue;

/// One parameter of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its key below `params`, the unit last.
    pub name: &'static str,
    /// What it sets.
    pub what: &'static str,
    /// Its values.
    pub takes: Takes,
}

/// Values of a parameter.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// A whole number.
    Whole {
        /// The least.
        min: i64,
        /// The largest.
        max: i64,
        /// What holds where it is left out.
        default: i64,
    },
    /// Any text but an empty one; left out it restricts nothing.
    Text,
    /// One of these words; the first where it is left out.
    Word(&'static [&'static str]),
    /// Yes or no; no where it is left out.
    Flag,
}

impl Parameter {
    /// What holds where it is left out; none where nothing does.
    #[must_use]
    pub fn default_value(&self) -> Option<ParamValue> {
        match self.takes {
            Takes::Whole { default, .. } => Some(ParamValue::Whole(default)),
            Takes::Text => None,
            Takes::Word(words) => words.first().map(|word| ParamValue::Text((*word).to_owned())),
            Takes::Flag => Some(ParamValue::Flag(false)),
        }
    }

    /// Whether it takes that value.
    ///
    /// # Errors
    /// In words, what it takes.
    pub fn check(&self, value: &ParamValue) -> Result<(), String> {
        let name = self.name;
        match (self.takes, value) {
            (Takes::Whole { min, max, .. }, ParamValue::Whole(given)) if (min..=max).contains(given) => Ok(()),
            (Takes::Whole { min, max, .. }, _) => Err(format!("{name} is a whole number from {min} to {max}")),
            (Takes::Text, ParamValue::Text(given)) if !given.trim().is_empty() => Ok(()),
            (Takes::Text, _) => Err(format!("{name} is a text that says something")),
            (Takes::Word(words), ParamValue::Text(given)) if words.contains(&given.as_str()) => Ok(()),
            (Takes::Word(words), _) => Err(format!("{name} is one of {}", words.join(", "))),
            (Takes::Flag, ParamValue::Flag(_)) => Ok(()),
            (Takes::Flag, _) => Err(format!("{name} is true or false")),
        }
    }
}

impl FaultRow {
    /// Whether a schedule may say this of the fault.
    ///
    /// # Errors
    /// In words, the first parameter that it does not have or that does not take its value.
    pub fn check_parameters(&self, given: &BTreeMap<String, ParamValue>) -> Result<(), String> {
        for (name, value) in given {
            let known = self.parameters();
            let parameter = known.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
                let there_is = if names.is_empty() { "it has none".to_owned() } else { names.join(", ") };
                format!("{} has no parameter '{name}': {there_is}", self.name)
            })?;
            parameter.check(value)?;
        }
        Ok(())
    }
}
