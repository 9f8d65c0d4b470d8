//! Every finished forecast once, with its content: from its row, else from an answer in full.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::checker::Case;
use crate::history::{F, ForecastAnswer};
use crate::model::{CanonicalError, canonical_json};
use crate::timeline::Op;

/// A forecast that succeeded, with all that was computed.
pub(super) struct Content<'a> {
    pub id: &'a str,
    /// Label of its tenant.
    pub tenant: &'a str,
    pub engine_version: &'a str,
    pub input: &'a Value,
    pub result: &'a Value,
    pub result_hash: &'a str,
    /// From request to end, on the run's clock.
    pub from_ns: u64,
    pub to_ns: u64,
}

/// Forecasts that succeeded, by id, content in full only.
pub(super) fn succeeded<'a>(case: &'a Case<'a>) -> BTreeMap<&'a str, Content<'a>> {
    let mut contents = BTreeMap::new();
    for (op, answer) in answers(case) {
        if let (Some(id), Some(input), Some(result)) = (id_of(op), &answer.input, &answer.result) {
            contents.entry(id).or_insert(Content {
                id,
                tenant: op.who(),
                engine_version: answer.engine_version.as_deref().unwrap_or_default(),
                input,
                result,
                result_hash: answer.result_hash.as_deref().unwrap_or_default(),
                from_ns: op.sent_ns(),
                to_ns: op.ended_ns(),
            });
        }
    }
    for row in case.evidence.final_state.forecasts.iter().filter(|row| row.state == "succeeded") {
        if let (Some(input), Some(result)) = (&row.input, &row.result) {
            let from_ns = case.timeline.run_clock_ns(row.requested_us);
            contents.insert(
                &row.forecast_id,
                Content {
                    id: &row.forecast_id,
                    tenant: case.rows.label(&row.tenant_id),
                    engine_version: row.engine_version.as_deref().unwrap_or_default(),
                    input,
                    result,
                    result_hash: row.result_hash.as_deref().unwrap_or_default(),
                    from_ns,
                    to_ns: row.finished_us.map_or(from_ns, |at| case.timeline.run_clock_ns(at)),
                },
            );
        }
    }
    contents
}

/// Answers that show a forecast that succeeded, in order of the operations' numbers.
pub(super) fn answers<'a>(case: &'a Case<'a>) -> impl Iterator<Item = (&'a Op<'a>, &'a ForecastAnswer)> {
    let reads = case.timeline.ops.values().filter(|op| op.f() == F::ForecastRead);
    reads.filter_map(|op| {
        let forecast = op.answer()?.forecast.as_ref()?;
        (forecast.state == "succeeded").then_some((op, forecast))
    })
}

/// The forecast that an answer is about.
pub(super) fn id_of<'a>(op: &Op<'a>) -> Option<&'a str> {
    op.answer().and_then(|answer| answer.id.as_deref()).or(op.invoke.args.id.as_deref())
}

/// SHA-256 of the canonical JSON of `{input, result}`.
pub(crate) fn content_sha256(input: &Value, result: &Value) -> Result<String, CanonicalError> {
    // The two keys are in canonical order.
    let text = format!("{{\"input\":{},\"result\":{}}}", canonical_json(input)?, canonical_json(result)?);
    Ok(hex::encode(Sha256::digest(text.as_bytes())))
}
