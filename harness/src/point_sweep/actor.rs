//! The client of a story: it asks until it knows, as a real one does.

use std::time::Duration;

use nogo_invariants::history::{Args, F};
use serde_json::json;
use tokio::time::Instant;

use super::scene::{APIS, Scene};
use crate::client::{Exchange, Outcome, Request, Session, SessionAnswer};
use crate::workload::{Call, Done, TenantProfile, client_address};

/// Between two requests for the same thing.
const PAUSE: Duration = Duration::from_millis(100);

/// A signed-up user with a session.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    pub profile: TenantProfile,
    pub session: Option<Session>,
    process: String,
    address: String,
    logins: u32,
}

impl Actor {
    pub(super) fn new(profile: TenantProfile) -> Self {
        let process = format!("client-{}-0", profile.label);
        let address = client_address(0, profile.index * 16);
        Self { profile, session: None, process, address, logins: 0 }
    }

    /// A call with the session's token, if there is one.
    pub(super) fn call(&self, f: F, mut request: Request, args: Args) -> Call {
        request.forwarded_for.clone_from(&self.address);
        request.bearer = self.session.as_ref().map(|session| session.tokens.access.clone());
        let mut call = Call::new(f, &self.process, request);
        call.tenant = Some(self.profile.label.clone());
        call.session = self.session.as_ref().map(|session| session.label.clone());
        call.token_op = self.session.as_ref().map(|session| session.tokens.token_op);
        call.args = args;
        call
    }

    pub(super) fn signup(&self) -> Call {
        let profile = &self.profile;
        let request = Request::new("POST", "/v1/signup").with_body(json!({
            "organization": profile.organization,
            "name": profile.owner_name,
            "email": profile.email,
            "password": profile.password,
            "plan": profile.plan,
            "currency": profile.currency,
            "time_zone": profile.time_zone,
            "tax_rate_ppm": profile.tax_rate_ppm,
            "payment_token": profile.payment_token,
        }));
        let args = Args {
            plan: Some(profile.plan.clone()),
            currency: Some(profile.currency.clone()),
            zone: Some(profile.time_zone.clone()),
            tax_rate_ppm: u32::try_from(profile.tax_rate_ppm).ok(),
            ..Args::default()
        };
        let mut call = self.call(F::Signup, request, args);
        call.opens_session = Some(self.label(0));
        call
    }

    pub(super) fn login(&self) -> Call {
        let body = json!({"email": self.profile.email, "password": self.profile.password});
        let mut call = self.call(F::Login, Request::new("POST", "/v1/login").with_body(body), Args::default());
        (call.session, call.token_op, call.request.bearer) = (None, None, None);
        call.opens_session = Some(self.label(self.logins + 1));
        call
    }

    /// None without a session.
    pub(super) fn refresh(&self) -> Option<Call> {
        let session = self.session.as_ref()?;
        let body = json!({"refresh_token": session.tokens.refresh});
        let request = Request::new("POST", "/v1/token/refresh").with_body(body);
        let mut call = self.call(F::Refresh, request, Args::default());
        (call.token_op, call.request.bearer) = (None, None);
        call.opens_session = Some(session.label.clone());
        Some(call)
    }

    /// Takes the session that a sign-up, a login or a refresh gave.
    pub(super) fn signed_in(&mut self, done: &Done, label: Option<String>) {
        let answer = done.success().and_then(|answer| serde_json::from_slice::<SessionAnswer>(&answer.body).ok());
        let Some(answer) = answer else { return };
        let label = label.unwrap_or_else(|| self.label(self.logins));
        self.session = Some(Session::new(answer, label, done.op));
    }

    /// As [`Self::signed_in`], for a session that a password opened.
    pub(super) fn logged_in(&mut self, done: &Done) {
        self.logins += 1;
        self.signed_in(done, None);
    }

    fn label(&self, number: u32) -> String {
        format!("{}/s{}", self.profile.label, number + 1)
    }
}

impl Scene {
    /// Asks until `is_through`, or it surely never will be, or `limit` is over; the last answer. Where an answer is lost
    /// the next request goes to another instance, if there is one, as whoever distributes requests would send it.
    pub(super) async fn ask_until(&self, call: &Call, limit: Duration, is_through: impl Fn(&Done) -> bool) -> Done {
        let deadline = Instant::now() + limit;
        let mut call = call.clone();
        call.instance = self.next_instance(APIS.len() - 1);
        loop {
            let done = self.driver.call(call.clone()).await;
            if is_through(&done) || is_final(&done) || Instant::now() >= deadline {
                return done;
            }
            tokio::time::sleep(PAUSE).await;
            if matches!(done.exchange, Exchange::Lost(_)) {
                call.instance = self.next_instance(call.instance);
            }
        }
    }

    /// The next instance after this one that runs; itself, if none does.
    fn next_instance(&self, after: usize) -> usize {
        let others = (1..=APIS.len()).map(|step| (after + step) % APIS.len());
        others.into_iter().find(|index| self.runs(APIS[*index])).unwrap_or(after)
    }
}

/// A refusal that another moment answers in the same way.
fn is_final(done: &Done) -> bool {
    done.outcome == Outcome::Fail && done.status().is_some_and(|status| !matches!(status, 408 | 409 | 425 | 429))
}
