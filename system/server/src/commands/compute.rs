//! `forecastle compute`: forecasts and calculators on standard input and output, without a server.
//!
//! For whoever wants to check or repeat a result offline: the same input gives the same bytes as a job.

use std::io::{BufRead as _, BufWriter, Write as _};

use anyhow::Context as _;
use forecastle_forecast::{Calculator, CalculatorError, ForecastError};
use serde_json::{Value, json};

use crate::cli::ComputeArgs;
use crate::exit_code::ExitCode;

/// Answers each line of standard input with one line, in order.
///
/// # Errors
/// If a line is not JSON (it is named) or a stream breaks.
pub(crate) fn run(args: &ComputeArgs) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.context("read standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let input: Value =
            serde_json::from_str(&line).with_context(|| format!("line {}: not a JSON value", number + 1))?;
        let answer = match args.calculator {
            Some(calculator) => calculated(calculator, &input),
            None => forecast(&input, args.threads),
        };
        serde_json::to_writer(&mut out, &answer).context("write standard output")?;
        writeln!(out).context("write standard output")?;
    }
    out.flush().context("write standard output")?;
    Ok(ExitCode::Done)
}

fn forecast(input: &Value, threads: usize) -> Value {
    match forecastle_forecast::run(input, threads, &|| false) {
        Ok(outcome) => json!({ "result": outcome.result, "result_hash": outcome.result_hash }),
        Err(ForecastError::Invalid(errors)) => json!({ "error_code": "invalid", "errors": errors }),
        Err(error) => json!({ "error_code": error.to_string() }),
    }
}

fn calculated(calculator: Calculator, input: &Value) -> Value {
    match calculator.evaluate(input) {
        Ok(answer) => answer,
        Err(CalculatorError::Invalid(errors)) => json!({ "error_code": "invalid", "errors": errors }),
        Err(error) => json!({ "error_code": error.to_string() }),
    }
}
