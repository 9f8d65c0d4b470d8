//! How a logical client gets and keeps a session: login, rotation before expiry, log-out.

use std::time::Duration;

use nogo_invariants::history::F;
use serde_json::json;

use super::driver::{Call, Done, Driver};
use super::world::{LogicalClient, Tenant, TokenShelf};
use crate::client::{Outcome, Request, Session, SessionAnswer};

/// An access token with less life than this left is replaced before it is used.
const REFRESH_MARGIN: Duration = Duration::from_secs(3);

/// A call of `client` for its tenant, with its session's token where it has one.
pub(super) fn signed_in(f: F, tenant: &Tenant, client: &LogicalClient, instance: usize, request: Request) -> Call {
    let mut request = request;
    request.forwarded_for.clone_from(&client.address);
    request.bearer = client.session.as_ref().map(|session| session.tokens.access.clone());
    let mut call = Call::new(f, &client.process, request);
    call.tenant = Some(tenant.profile.label.clone());
    call.session = client.session.as_ref().map(|session| session.label.clone());
    call.token_op = client.session.as_ref().map(|session| session.tokens.token_op);
    call.instance = instance;
    call
}

impl Driver {
    /// Sees to it that `client` has a token that is good for a while; false where it could not get one.
    pub(super) async fn ensure_session(
        &self,
        tenant: &Tenant,
        client: &mut LogicalClient,
        shelf: &TokenShelf,
        instance: usize,
    ) -> bool {
        let due = client
            .session
            .as_ref()
            .is_some_and(|session| session.tokens.is_due(REFRESH_MARGIN.min(session.tokens.lives / 4)));
        if due {
            self.refresh(tenant, client, shelf, instance, None).await;
        }
        if client.session.is_none() {
            self.login(tenant, client, instance, None).await;
        }
        client.session.as_ref().is_some_and(|session| !session.tokens.is_due(Duration::ZERO))
    }

    /// Opens a session by password; what the client had before is forgotten only where a new one was given.
    pub(super) async fn login(
        &self,
        tenant: &Tenant,
        client: &mut LogicalClient,
        instance: usize,
        intended_ns: Option<u64>,
    ) -> Done {
        let mut request = Request::new("POST", "/v1/login");
        request.forwarded_for.clone_from(&client.address);
        request.body = Some(json!({"email": tenant.profile.email, "password": tenant.profile.password}));
        let label = tenant.next_session_label();
        let mut call = Call::new(F::Login, &client.process, request);
        call.tenant = Some(tenant.profile.label.clone());
        call.opens_session = Some(label.clone());
        call.instance = instance;
        call.intended_ns = intended_ns;
        call.counts = intended_ns.is_some();
        let done = self.call(call).await;
        if let Some(answer) = session_answer(&done) {
            client.session = Some(Session::new(answer, label, done.op));
        }
        done
    }

    /// Rotates the refresh token. A refused one ends the client's session; a lost answer leaves the old tokens, and
    /// the server's grace lets them be used again.
    pub(super) async fn refresh(
        &self,
        tenant: &Tenant,
        client: &mut LogicalClient,
        shelf: &TokenShelf,
        instance: usize,
        intended_ns: Option<u64>,
    ) -> Option<Done> {
        let session = client.session.as_mut()?;
        let mut request = Request::new("POST", "/v1/token/refresh");
        request.forwarded_for.clone_from(&client.address);
        request.body = Some(json!({"refresh_token": session.tokens.refresh}));
        let mut call = Call::new(F::Refresh, &client.process, request);
        call.tenant = Some(tenant.profile.label.clone());
        call.session = Some(session.label.clone());
        call.opens_session = Some(session.label.clone());
        call.instance = instance;
        call.intended_ns = intended_ns;
        call.counts = intended_ns.is_some();
        let done = self.call(call).await;
        if let Some(answer) = session_answer(&done) {
            shelf.retire(session.tokens.clone());
            let label = session.label.clone();
            client.session = Some(Session::new(answer, label, done.op));
        } else if done.status() == Some(401) {
            client.session = None;
        }
        Some(done)
    }

    /// Ends `session`; where that is acknowledged its token goes to the shelf of revoked ones.
    pub(super) async fn logout(
        &self,
        tenant: &Tenant,
        client: &LogicalClient,
        session: &Session,
        shelf: &TokenShelf,
        instance: usize,
    ) -> Done {
        let mut request = Request::new("POST", "/v1/logout");
        request.forwarded_for.clone_from(&client.address);
        request.bearer = Some(session.tokens.access.clone());
        let mut call = Call::new(F::Logout, &client.process, request);
        call.tenant = Some(tenant.profile.label.clone());
        call.session = Some(session.label.clone());
        call.token_op = Some(session.tokens.token_op);
        call.instance = instance;
        let done = self.call(call).await;
        if done.outcome == Outcome::Ok {
            shelf.revoke(&session.tokens, done.op);
        }
        done
    }
}

pub(super) fn session_answer(done: &Done) -> Option<SessionAnswer> {
    serde_json::from_slice(&done.success()?.body).ok()
}
