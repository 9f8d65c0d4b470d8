//! How the process ends, for whoever started it.

use forecastle_store::StoreError;

/// Exit codes; 2 (usage) is the argument parser's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// Done, or drained after SIGTERM.
    Done,
    /// Failed in a way no retry mends.
    Failed,
    /// `bill`: something is left to be done; run it again.
    BillingIncomplete,
    /// A server that is needed did not answer.
    NotReady,
}

impl ExitCode {
    /// The code for an error that ended a command.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let unavailable =
            error.chain().any(|cause| cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_unavailable));
        if unavailable { Self::NotReady } else { Self::Failed }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(match code {
            ExitCode::Done => 0,
            ExitCode::Failed => 1,
            ExitCode::BillingIncomplete => 5,
            ExitCode::NotReady => 6,
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_told_from_a_bug() {
        let silent = Err::<(), _>(StoreError::Timeout).context("migrate").unwrap_err();
        assert_eq!(ExitCode::of(&silent), ExitCode::NotReady);
        let bug = Err::<(), _>(StoreError::NotFound).context("migrate").unwrap_err();
        assert_eq!(ExitCode::of(&bug), ExitCode::Failed);
    }
}
