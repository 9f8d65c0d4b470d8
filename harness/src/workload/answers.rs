//! From an answer's bytes to what the record keeps of it: ids, states, counts, digests, and financial content in full.
//!
//! Reads leniently: a field that is missing or of another type is left out, and the law that needs it says so.

use nogo_invariants::history::{
    Answer as Recorded, DashboardAnswer, F, ForecastAnswer, InvoiceAnswer, InvoiceLineAnswer, Item, UsageAnswer,
};
use nogo_invariants::model::canonical::canonical_json;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::client::Answer;

/// SHA-256, lower-case hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of the canonical JSON of `{name, notes, input}`; none where there is no canonical form.
fn content_sha256(content: &Value) -> Option<String> {
    canonical_sha256(&json!({"name": content["name"], "notes": content["notes"], "input": content["input"]}))
}

fn canonical_sha256(value: &Value) -> Option<String> {
    canonical_json(value).ok().map(|text| sha256_hex(text.as_bytes()))
}

/// What the record keeps of a 2xx to `f`, or to a request that imitates `f`.
pub(super) fn recorded(f: F, answer: &Answer) -> Recorded {
    let body = answer.json();
    let mut kept = Recorded { id: text(&body["id"]), ..Recorded::default() };
    match f {
        F::Signup | F::Login | F::Refresh => {
            kept.tenant_id = text(&body["tenant_id"]);
            kept.user_id = text(&body["user_id"]);
            kept.expires_in_s = body["expires_in"].as_u64();
        }
        F::Me => {
            kept.tenant_id = text(&body["tenant_id"]);
            kept.user_id = text(&body["user_id"]);
        }
        F::ScenarioCreate | F::ScenarioRead | F::ScenarioEdit => {
            kept.version = body["version"].as_u64();
            kept.etag = answer.header("etag").map(str::to_owned);
            kept.content_sha256 = content_sha256(&body);
            kept.input_sha256 = canonical_sha256(&body["input"]);
        }
        F::ScenarioList | F::ForecastList | F::InvoiceList => kept.items = items(&body["items"]),
        F::ForecastRequest | F::ForecastRead => {
            kept.scenario_id = text(&body["scenario_id"]);
            kept.forecast = Some(forecast(&body));
        }
        F::Dashboard => {
            kept.dashboard = Some(dashboard(&body));
            kept.usage = usage(&body["usage"]);
            kept.items = items(&body["recent_forecasts"]);
        }
        F::Calculate => kept.calculation = Some(body),
        F::Plan => kept.plan = text(&body["plan"]),
        F::Usage => kept.usage = usage(&body),
        F::InvoiceRead => kept.invoice = Some(invoice(&body)),
        F::Logout | F::Other | F::Health | F::Foreign | F::Absent | F::AuthProbe => {}
    }
    kept
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn items(list: &Value) -> Vec<Item> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .map(|item| Item {
            id: text(&item["id"]).unwrap_or_default(),
            state: text(&item["state"]),
            version: item["version"].as_u64(),
        })
        .collect()
}

fn forecast(body: &Value) -> ForecastAnswer {
    let result = (!body["result"].is_null()).then(|| body["result"].clone());
    let digest =
        result.as_ref().and_then(|result| canonical_sha256(&json!({"input": body["input"], "result": result})));
    ForecastAnswer {
        state: text(&body["state"]).unwrap_or_default(),
        scenario_version: body["scenario_version"].as_u64(),
        attempts: body["attempts"].as_u64(),
        engine_version: text(&body["engine_version"]),
        result_hash: text(&body["result_hash"]),
        error_code: text(&body["error_code"]),
        content_sha256: digest,
        input: result.is_some().then(|| body["input"].clone()),
        result,
    }
}

fn dashboard(body: &Value) -> DashboardAnswer {
    let forecasts = body["forecasts"]
        .as_object()
        .map(|counts| counts.iter().filter_map(|(state, count)| Some((state.clone(), count.as_u64()?))).collect());
    DashboardAnswer {
        scenarios: body["scenarios"].as_u64().unwrap_or_default(),
        forecasts: forecasts.unwrap_or_default(),
    }
}

fn usage(body: &Value) -> Option<UsageAnswer> {
    Some(UsageAnswer {
        period_index: body["period_index"].as_i64()?,
        forecasts_succeeded: body["forecasts_succeeded"].as_u64()?,
        quota_taken: body["quota_taken"].as_u64()?,
        included_forecasts: body["included_forecasts"].as_u64()?,
    })
}

fn invoice(body: &Value) -> InvoiceAnswer {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let lines = body["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    InvoiceAnswer {
        state: text(&body["state"]).unwrap_or_default(),
        number: body["number"].as_i64(),
        period_index: number(&body["period_index"]),
        currency: text(&body["currency"]).unwrap_or_default(),
        tax_minor: number(&body["tax_minor"]),
        total_minor: number(&body["total_minor"]),
        lines: lines
            .iter()
            .map(|line| InvoiceLineAnswer {
                kind: text(&line["kind"]).unwrap_or_default(),
                quantity: number(&line["quantity"]),
                unit_price_minor: number(&line["unit_price_minor"]),
                amount_minor: number(&line["amount_minor"]),
                tax_minor: number(&line["tax_minor"]),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn answer(body: Value) -> Answer {
        let headers = BTreeMap::from([("etag".to_owned(), "\"3\"".to_owned())]);
        Answer { status: 200, headers, body: body.to_string().into() }
    }

    #[test]
    fn a_scenario_keeps_its_version_tag_and_content_digest() {
        let content = json!({"name": "n", "notes": null, "input": {"horizon_months": 12}});
        let kept = recorded(
            F::ScenarioRead,
            &answer(json!({"id": "s", "version": 3, "input": {"horizon_months": 12}, "notes": null, "name": "n"})),
        );
        assert_eq!((kept.version, kept.etag.as_deref()), (Some(3), Some("\"3\"")));
        assert_eq!(kept.content_sha256, content_sha256(&content));
        assert!(kept.content_sha256.is_some());
    }

    #[test]
    fn a_finished_forecast_is_kept_in_full_and_a_queued_one_is_not() {
        let done = recorded(
            F::ForecastRead,
            &answer(json!({"id": "f", "state": "succeeded", "input": {"a": "1"}, "result": {"b": "2"}})),
        );
        let forecast = done.forecast.expect("forecast");
        assert_eq!((forecast.input, forecast.result), (Some(json!({"a": "1"})), Some(json!({"b": "2"}))));
        assert!(forecast.content_sha256.is_some());
        let queued =
            recorded(F::ForecastRead, &answer(json!({"id": "f", "state": "queued", "input": {}, "result": null})));
        let forecast = queued.forecast.expect("forecast");
        assert_eq!((forecast.input, forecast.result, forecast.content_sha256), (None, None, None));
    }

    #[test]
    fn an_answer_of_another_shape_leaves_fields_out() {
        let kept = recorded(F::Usage, &answer(json!(["unexpected"])));
        assert_eq!(kept.usage, None);
    }
}
