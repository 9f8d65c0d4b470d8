//! The exit codes of `nogo`. They are an interface: scripts and CI branch on them.
//!
//! Where several apply, the order is [`ExitCode::HarnessBroke`], [`ExitCode::Violated`], [`ExitCode::Inconclusive`],
//! [`ExitCode::BudgetMissed`]. All stay below 126, since shells use the rest for themselves.

/// How a command of `nogo` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Every required law held, with enough evidence: GO.
    Held,
    /// A no-go law was violated: NO-GO.
    Violated,
    /// A flag, a file or a name was wrong.
    Usage,
    /// The evidence does not reach: a fault did not land, or a law had too few chances to fail.
    Inconclusive,
    /// Only a budget was missed: CONDITIONAL GO.
    BudgetMissed,
    /// An engine, an image or a binary that the run needs is not there.
    EnvironmentNotReady,
    /// The selection names nothing to run.
    NothingSelected,
    /// nogo itself failed; the run says nothing about the system.
    HarnessBroke,
    /// Ctrl-C; the record that exists so far was kept.
    Interrupted,
}

impl ExitCode {
    /// The number given to the operating system.
    pub fn number(self) -> u8 {
        match self {
            ExitCode::Held => 0,
            ExitCode::Violated => 1,
            ExitCode::Usage => 2,
            ExitCode::Inconclusive => 3,
            ExitCode::BudgetMissed => 4,
            ExitCode::EnvironmentNotReady => 6,
            ExitCode::NothingSelected => 7,
            ExitCode::HarnessBroke => 70,
            ExitCode::Interrupted => 130,
        }
    }

    /// The name printed beside the number.
    pub fn name(self) -> &'static str {
        match self {
            ExitCode::Held => "held",
            ExitCode::Violated => "no-go violated",
            ExitCode::Usage => "usage",
            ExitCode::Inconclusive => "inconclusive",
            ExitCode::BudgetMissed => "budget missed",
            ExitCode::EnvironmentNotReady => "environment not ready",
            ExitCode::NothingSelected => "nothing selected",
            ExitCode::HarnessBroke => "harness broke",
            ExitCode::Interrupted => "interrupted",
        }
    }

    /// The code for a verdict's number, as stored in `results.json`.
    pub fn from_number(number: u8) -> Option<ExitCode> {
        [
            ExitCode::Held,
            ExitCode::Violated,
            ExitCode::Usage,
            ExitCode::Inconclusive,
            ExitCode::BudgetMissed,
            ExitCode::EnvironmentNotReady,
            ExitCode::NothingSelected,
            ExitCode::HarnessBroke,
            ExitCode::Interrupted,
        ]
        .into_iter()
        .find(|code| code.number() == number)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code.number())
    }
}

/// An error that carries the exit code it should end with; put into an `anyhow` chain where the default
/// ([`ExitCode::HarnessBroke`]) would be wrong.
#[derive(Debug)]
pub struct EndsWith {
    /// The code to end with.
    pub code: ExitCode,
    /// What is wrong, and the fix.
    pub message: String,
}

impl EndsWith {
    /// A usage error: names what was given and what would do.
    pub fn usage(message: impl Into<String>) -> Self {
        EndsWith { code: ExitCode::Usage, message: message.into() }
    }

    /// The environment lacks something: names it and its fix.
    pub fn environment(message: impl Into<String>) -> Self {
        EndsWith { code: ExitCode::EnvironmentNotReady, message: message.into() }
    }

    /// The evidence cannot reach: names what could not land.
    pub fn inconclusive(message: impl Into<String>) -> Self {
        EndsWith { code: ExitCode::Inconclusive, message: message.into() }
    }
}

impl std::fmt::Display for EndsWith {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for EndsWith {}

/// The exit code of an error: that of the [`EndsWith`] in its chain, else [`ExitCode::HarnessBroke`].
pub fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<EndsWith>().map(|ends| ends.code))
        .unwrap_or(ExitCode::HarnessBroke)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number_and_stays_below_126_or_is_the_signals() {
        for number in 0..=255u8 {
            if let Some(code) = ExitCode::from_number(number) {
                assert_eq!(code.number(), number);
                assert!(number < 126 || code == ExitCode::Interrupted);
            }
        }
    }

    #[test]
    fn an_error_without_a_code_means_the_harness_broke() {
        assert_eq!(exit_code_of(&anyhow::anyhow!("disk gone")), ExitCode::HarnessBroke);
        let error = anyhow::Error::new(EndsWith::usage("no such suite")).context("read the command line");
        assert_eq!(exit_code_of(&error), ExitCode::Usage);
    }
}
