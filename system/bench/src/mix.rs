//! The standard mix: reads 40 %, writes 30 %, calculations 20 %, signing in 10 %, by customers with addresses of
//! their own. One operation is one request; which one, of whom, is drawn.

use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, RETRY_AFTER};
use hyper::{Method, StatusCode};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Answer, Call, Connection};
use crate::customers::{Customer, PASSWORD};

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    ReadScenario,
    ReadForecast,
    ReadDashboard,
    ListScenarios,
    CreateScenario,
    EditScenario,
    RequestForecast,
    Calculate,
    Refresh,
    LogIn,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    /// 429 or 503 that says when to come back.
    Refused,
    /// Anything else.
    Error,
}

/// Everybody who takes part, and what they write.
pub(crate) struct Mix {
    customers: Vec<Arc<Customer>>,
    /// Positions of those whom no plan limits.
    pro: Vec<usize>,
    input: Value,
    calculator: Option<Call>,
}

impl Mix {
    /// `customers`, at least one of them PRO; `has_calculators` where the interface offers them.
    pub(crate) fn new(customers: Vec<Customer>, has_calculators: bool) -> anyhow::Result<Self> {
        let pro: Vec<usize> = (0..customers.len()).filter(|index| customers[*index].is_pro).collect();
        anyhow::ensure!(!pro.is_empty(), "nobody has the PRO plan");
        let body = json!({ "rate": "0.1", "flows": ["-1000", "300", "420", "680"] });
        let calculator = has_calculators.then(|| Call::send_json(Method::POST, "/v1/calculators/npv", &body));
        let customers = customers.into_iter().map(Arc::new).collect();
        Ok(Self { customers, pro, input: crate::inputs::scenario(24, 1, 4, None), calculator })
    }

    /// The next operation and who does it.
    pub(crate) fn draw(&self, rng: &mut StdRng) -> (Operation, Arc<Customer>) {
        use Operation::{
            Calculate, CreateScenario, EditScenario, ListScenarios, LogIn, ReadDashboard, ReadForecast, ReadScenario,
            Refresh, RequestForecast,
        };
        // In thousandths.
        let operation = match rng.random_range(0..1_000) {
            0..160 => ReadScenario,
            160..280 => ReadForecast,
            280..360 => ReadDashboard,
            360..400 => ListScenarios,
            400..500 => CreateScenario,
            500..700 => EditScenario,
            700..880 => RequestForecast,
            880..900 => Calculate,
            900..995 => Refresh,
            _ => LogIn,
        };
        // Limits of the smaller plans are the customer's own doing, not what is measured here.
        let unlimited = matches!(operation, CreateScenario | RequestForecast);
        let index = if unlimited {
            self.pro[rng.random_range(0..self.pro.len())]
        } else {
            rng.random_range(0..self.customers.len())
        };
        (operation, Arc::clone(&self.customers[index]))
    }

    /// Does it, over this connection; the connection is of no more use after an `Err`.
    pub(crate) async fn perform(
        &self,
        operation: Operation,
        customer: &Customer,
        simulates: bool,
        connection: &mut Connection,
    ) -> anyhow::Result<Ending> {
        let mut send = async |call: Call| connection.call(&call.signed_by(customer)).await;
        let answer = match operation {
            Operation::ReadScenario => send(Call::get(format!("/v1/scenarios/{}", customer.scenario))).await?,
            Operation::ReadForecast => {
                let forecast = *customer.forecast.lock().expect("not poisoned");
                send(forecast.map_or_else(
                    || Call::get("/v1/forecasts?limit=20".to_owned()),
                    |forecast| Call::get(format!("/v1/forecasts/{forecast}")),
                ))
                .await?
            }
            Operation::ReadDashboard => send(Call::get("/v1/dashboard".to_owned())).await?,
            Operation::ListScenarios => send(Call::get("/v1/scenarios?limit=20".to_owned())).await?,
            Operation::CreateScenario => {
                let body = json!({ "name": "Another plan", "input": self.input });
                send(Call::send_json(Method::POST, "/v1/scenarios", &body).once()).await?
            }
            Operation::EditScenario => {
                let mut version = customer.version.lock().await;
                let body = json!({ "name": "An edited plan", "input": self.input });
                let tag = HeaderValue::from_str(&format!("\"{version}\""))?;
                let path = format!("/v1/scenarios/{}", customer.scenario);
                let answer = send(Call::send_json(Method::PUT, &path, &body).header(IF_MATCH, tag)).await?;
                if answer.status == StatusCode::OK {
                    *version += 1;
                }
                answer
            }
            Operation::RequestForecast => {
                let scenario = customer.simulated.filter(|_| simulates).unwrap_or(customer.scenario);
                let body = json!({ "scenario_id": scenario });
                let answer = send(Call::send_json(Method::POST, "/v1/forecasts", &body).once()).await?;
                if answer.status == StatusCode::ACCEPTED {
                    let id = answer.json()?["id"].as_str().and_then(|id| id.parse().ok());
                    *customer.forecast.lock().expect("not poisoned") = id;
                }
                answer
            }
            Operation::Calculate => {
                let call = self.calculator.clone().unwrap_or_else(|| Call::get("/v1/usage".to_owned()));
                send(call).await?
            }
            Operation::Refresh => {
                let mut token = customer.refresh_token.lock().await;
                let body = json!({ "refresh_token": *token });
                let answer = send(Call::send_json(Method::POST, "/v1/token/refresh", &body)).await?;
                if answer.status == StatusCode::OK {
                    answer.json()?["refresh_token"].as_str().unwrap_or_default().clone_into(&mut token);
                }
                answer
            }
            Operation::LogIn => {
                let body = json!({ "email": customer.email, "password": PASSWORD });
                send(Call::send_json(Method::POST, "/v1/login", &body)).await?
            }
        };
        Ok(ending(&answer))
    }
}

fn ending(answer: &Answer) -> Ending {
    match answer.status {
        StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ending::Done,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if answer.headers.contains_key(RETRY_AFTER) => {
            Ending::Refused
        }
        _ => Ending::Error,
    }
}

impl Call {
    /// With the customer's token and address.
    pub(crate) fn signed_by(self, customer: &Customer) -> Self {
        self.header(hyper::header::AUTHORIZATION, customer.authorization.clone())
            .header(HeaderName::from_static("x-forwarded-for"), customer.address.clone())
    }

    /// With an idempotency key of its own.
    pub(crate) fn once(self) -> Self {
        let key = HeaderValue::from_str(&Uuid::new_v4().to_string()).expect("a UUID is ASCII");
        debug_assert!(self.headers.contains_key(CONTENT_TYPE), "only what is sent with a body is done once");
        self.header(HeaderName::from_static("idempotency-key"), key)
    }
}
