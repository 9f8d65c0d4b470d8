//! The OpenAPI 3.1 document, made from the registered operations themselves.
//!
//! What holds for a whole group is written into each of its operations here, from the same grouping
//! that puts the layers around the routes: so the document cannot say that a protected route is open.

use std::sync::LazyLock;

use axum::http::Method;
use forecastle_domain::{Right, Role};
use utoipa::Modify;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::error::{FieldProblem, PROBLEM_JSON, Problem};
use crate::routes;

/// Name of the security scheme of protected operations.
const BEARER: &str = "bearer";
/// Where a protected operation says which right it needs.
const RIGHT: &str = "x-right";

/// Where an operation's declaration says that it may end sessions or change what their users may do, and so that
/// its answer may have to wait until no instance acts on the old state. It is no client's business, and two
/// extensions would stand in the document in any order, so it does not show there.
const ENDS_SESSIONS: &str = "x-ends-sessions";

/// Whether the operation says so.
pub(crate) fn ends_sessions(method: &Method, route: &str) -> bool {
    static DECLARED: LazyLock<Vec<(String, Method)>> = LazyLock::new(declared);
    DECLARED.iter().any(|(path, of)| of == method && path == route)
}

fn declared() -> Vec<(String, Method)> {
    let open = [routes::public(), routes::credentials(), routes::signed()];
    let groups = open.into_iter().chain(Right::ALL.iter().map(|right| routes::of_right(*right)));
    groups.flat_map(|group| declared_in(&group.into_openapi())).collect()
}

fn declared_in(group: &OpenApi) -> Vec<(String, Method)> {
    let mut found = Vec::new();
    for (path, item) in &group.paths.paths {
        let operations = [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::DELETE, &item.delete),
            (Method::PATCH, &item.patch),
        ];
        for (method, operation) in operations {
            let extensions = operation.as_ref().and_then(|operation| operation.extensions.as_ref());
            if extensions.is_some_and(|extensions| extensions.contains_key(ENDS_SESSIONS)) {
                found.push((path.clone(), method));
            }
        }
    }
    found
}

/// The document as JSON.
///
/// # Panics
/// Never: the document is plain data.
#[must_use]
pub fn openapi() -> String {
    document().to_json().expect("the document is plain data")
}

pub(crate) fn document() -> OpenApi {
    let mut open = routes::public().into_openapi();
    open.merge(routes::credentials().into_openapi());
    open.merge(routes::signed().into_openapi());
    Group { right: None }.modify(&mut open);

    let info = InfoBuilder::new()
        .title("Forecastle")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Financial forecasts for many tenants. Errors are problem documents (RFC 9457)."));
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = ComponentsBuilder::new()
        .security_scheme(BEARER, SecurityScheme::Http(scheme))
        .schema(Problem::name(), Problem::schema())
        .schema(FieldProblem::name(), FieldProblem::schema())
        .build();
    let mut document = OpenApiBuilder::new().info(info.build()).components(Some(components)).build();
    document.merge(open);
    for right in Right::ALL {
        let mut group = routes::of_right(*right).into_openapi();
        Group { right: Some(*right) }.modify(&mut group);
        document.merge(group);
    }
    document
}

/// What all operations of a group have in common.
struct Group {
    /// What a caller must have; `None` where everybody may.
    right: Option<Right>,
}

impl Modify for Group {
    fn modify(&self, document: &mut OpenApi) {
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch, &mut item.head];
            for operation in operations.into_iter().flatten() {
                self.describe(operation);
            }
        }
    }
}

impl Group {
    fn describe(&self, operation: &mut Operation) {
        if let Some(extensions) = &mut operation.extensions {
            extensions.remove(ENDS_SESSIONS);
        }
        let bearer = SecurityRequirement::new(BEARER, Vec::<String>::new());
        operation.security = Some(if self.right.is_some() { vec![bearer] } else { Vec::new() });
        let mut everywhere = vec![
            ("429", "Too many requests; Retry-After says when to come back."),
            ("431", "The headers are too large."),
            ("500", "A bug of ours."),
            ("503", "Something needed does not answer; Retry-After says when to come back."),
        ];
        if let Some(right) = self.right {
            let declared = Extensions::from_iter([(RIGHT, right.as_str())]);
            operation.extensions.get_or_insert_default().merge(declared);
            everywhere.push(("401", "No valid access token, or its session has ended."));
            if Role::ALL.iter().any(|role| !role.may(right)) {
                everywhere.push(("403", "The caller's role does not have the right (role_forbidden)."));
            }
        }
        if operation.request_body.is_some() {
            everywhere.push(("408", "The body did not come in time."));
            everywhere.push(("413", "The body is too large."));
            everywhere.push(("415", "The body is not application/json, or is packed."));
        }
        for (status, description) in everywhere {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
            let response = ResponseBuilder::new().description(description).content(PROBLEM_JSON, problem).build();
            operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn operations() -> Vec<(String, String, Value)> {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().clone();
        let each = paths.into_iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().clone();
            methods.into_iter().map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        });
        each.collect()
    }

    #[test]
    fn the_document_is_openapi_3_1_and_lists_every_operation_with_its_right() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        let right = |operation: &Value| operation[RIGHT].as_str().unwrap_or("open").to_owned();
        let mut listed: Vec<_> = operations()
            .into_iter()
            .map(|(method, path, operation)| (format!("{method} {path}"), right(&operation)))
            .collect();
        listed.sort();
        let listed: Vec<_> = listed.into_iter().map(|(name, right)| format!("{name}: {right}")).collect();
        assert_eq!(
            listed,
            [
                "DELETE /v1/plan/changes/pending: manage_billing",
                "DELETE /v1/sessions/{id}: account",
                "DELETE /v1/users/{id}: manage_users",
                "GET /.well-known/jwks.json: open",
                "GET /livez: open",
                "GET /metrics: open",
                "GET /openapi.json: open",
                "GET /readyz: open",
                "GET /v1/audit-log: manage_users",
                "GET /v1/credit-notes: read",
                "GET /v1/credit-notes/{id}: read",
                "GET /v1/dashboard: read",
                "GET /v1/flags: read",
                "GET /v1/forecasts: read",
                "GET /v1/forecasts/events: read",
                "GET /v1/forecasts/{id}: read",
                "GET /v1/invoices: read",
                "GET /v1/invoices/upcoming: read",
                "GET /v1/invoices/{id}: read",
                "GET /v1/me: account",
                "GET /v1/payment-method: manage_billing",
                "GET /v1/payments: read",
                "GET /v1/payments/{id}: read",
                "GET /v1/plan: read",
                "GET /v1/scenarios: read",
                "GET /v1/scenarios/{id}: read",
                "GET /v1/sessions: account",
                "GET /v1/usage: read",
                "GET /v1/users: read",
                "GET /v1/users/{id}: read",
                "PATCH /v1/users/{id}: manage_users",
                "POST /v1/calculators/amortisation: read",
                "POST /v1/calculators/fv: read",
                "POST /v1/calculators/irr: read",
                "POST /v1/calculators/mirr: read",
                "POST /v1/calculators/nper: read",
                "POST /v1/calculators/npv: read",
                "POST /v1/calculators/percentile: read",
                "POST /v1/calculators/pmt: read",
                "POST /v1/calculators/pv: read",
                "POST /v1/email-verification: account",
                "POST /v1/email-verification/confirm: open",
                "POST /v1/forecasts: write",
                "POST /v1/forecasts/{id}/cancel: write",
                "POST /v1/forecasts/{id}/retry: write",
                "POST /v1/invoices/{id}/pay: manage_billing",
                "POST /v1/login: open",
                "POST /v1/logout: account",
                "POST /v1/password-reset: open",
                "POST /v1/password-reset/confirm: open",
                "POST /v1/plan/changes: manage_billing",
                "POST /v1/scenarios: write",
                "POST /v1/signup: open",
                "POST /v1/token/refresh: open",
                "POST /v1/users: manage_users",
                "POST /v1/webhooks/payments: open",
                "PUT /v1/me/password: account",
                "PUT /v1/payment-method: manage_billing",
                "PUT /v1/scenarios/{id}: write",
            ]
        );
    }

    #[test]
    fn only_the_doors_and_the_machines_are_open() {
        for (method, path, operation) in operations() {
            let doors = [
                "/v1/signup",
                "/v1/login",
                "/v1/token/refresh",
                "/v1/email-verification/confirm",
                "/v1/password-reset",
                "/v1/password-reset/confirm",
                "/v1/webhooks/payments",
            ];
            let is_open = !path.starts_with("/v1/") || doors.contains(&&*path);
            let expected = if is_open { serde_json::json!([]) } else { serde_json::json!([{"bearer": []}]) };
            assert_eq!(operation["security"], expected, "{method} {path}");
            assert!(operation["responses"].get("401").is_some() || is_open, "{method} {path}");
            let right: Option<Right> = operation[RIGHT].as_str().map(|word| word.parse().unwrap());
            assert_eq!(right.is_none(), is_open, "{method} {path}");
            let may_be_refused = right.is_some_and(|right| !Role::Viewer.may(right));
            assert!(!may_be_refused || operation["responses"].get("403").is_some(), "{method} {path}");
            // A calculator changes nothing, whatever its method.
            let changes = method != "GET" && !is_open && right != Some(Right::Account);
            let changes = changes && !path.starts_with("/v1/calculators");
            assert!(!changes || may_be_refused, "{method} {path}: a viewer only reads");
        }
    }

    /// Every schema below this one, references followed; each path of references once.
    fn schemas_below<'a>(document: &'a Value, schema: &'a Value, seen: &mut Vec<&'a str>, found: &mut Vec<&'a Value>) {
        if let Some(name) = schema["$ref"].as_str() {
            if !seen.contains(&name) {
                seen.push(name);
                schemas_below(document, document.pointer(&name[1..]).unwrap(), seen, found);
            }
            return;
        }
        found.push(schema);
        for keyword in ["oneOf", "anyOf", "allOf"] {
            schema[keyword].as_array().into_iter().flatten().for_each(|s| schemas_below(document, s, seen, found));
        }
        schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|p| p.values())
            .for_each(|s| schemas_below(document, s, seen, found));
        if schema.get("items").is_some() {
            schemas_below(document, &schema["items"], seen, found);
        }
    }

    #[test]
    fn a_body_takes_no_field_that_the_document_does_not_name() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let mut objects = 0;
        for (method, path, operation) in operations() {
            // The provider's events may carry more than is read of them.
            if operation.get("requestBody").is_none() || path == "/v1/webhooks/payments" {
                continue;
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            let mut found = Vec::new();
            schemas_below(&document, body, &mut Vec::new(), &mut found);
            for schema in found.iter().filter(|schema| schema["type"] == "object") {
                assert_eq!(schema["additionalProperties"], false, "{method} {path}: {schema}");
                objects += 1;
            }
            assert!(found.iter().any(|schema| schema["type"] == "object"), "{method} {path}");
        }
        assert!(objects > 30, "{objects}");
    }

    #[test]
    fn what_may_be_absent_but_not_null_is_not_called_nullable() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        for (schema, field) in
            [("SignUp", "plan"), ("SignUp", "tax_rate_ppm"), ("UserChange", "name"), ("UserChange", "role")]
        {
            let schema = &document["components"]["schemas"][schema];
            assert!(!schema["properties"][field].to_string().contains("null"), "{field}: {schema}");
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            assert!(!required.contains(&field.into()), "{field}: {schema}");
        }
        for (method, path, operation) in operations() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(!parameter["schema"].to_string().contains("null"), "{method} {path}: {parameter}");
            }
        }
    }

    #[test]
    fn one_name_stands_for_one_form() {
        let document: Value = serde_json::from_str(&openapi()).unwrap();
        let schemas = &document["components"]["schemas"];
        // Components of one name would be merged without a word.
        assert_eq!(schemas["Line"]["properties"]["unit_price_minor"]["type"], "integer");
        assert_eq!(schemas["ShortText"]["type"], "string");
        assert_eq!(schemas["FixedKind"]["enum"], serde_json::json!(["fixed"]));
    }

    #[test]
    fn what_makes_instances_forget_sessions_declares_it() {
        let mut declared: Vec<_> = declared().into_iter().map(|(path, method)| format!("{method} {path}")).collect();
        declared.sort();
        assert_eq!(
            declared,
            [
                "DELETE /v1/sessions/{id}",
                "DELETE /v1/users/{id}",
                "PATCH /v1/users/{id}",
                "POST /v1/logout",
                "POST /v1/password-reset/confirm",
                "POST /v1/token/refresh",
                "PUT /v1/me/password",
            ]
        );
        assert!(ends_sessions(&Method::POST, "/v1/logout") && !ends_sessions(&Method::GET, "/v1/users/{id}"));
        // Whoever waits for the other instances does it by one of these; where one is called, an operation of the
        // same file says so.
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/routes")).unwrap() {
            let path = file.unwrap().path();
            let code = std::fs::read_to_string(&path).unwrap();
            let waits = ["forget", "withhold", "commit_ending", "end"]
                .iter()
                .any(|name| code.contains(&format!("session_check::{name}(")));
            assert_eq!(code.contains(ENDS_SESSIONS), waits, "{}", path.display());
        }
    }

    #[test]
    fn path_parameters_are_documented_and_every_reference_resolves() {
        for (method, path, operation) in operations() {
            let documented = operation["parameters"].as_array().is_some_and(|parameters| {
                parameters.iter().any(|parameter| parameter["in"] == "path" && parameter["name"] == "id")
            });
            assert_eq!(documented, path.contains("{id}"), "{method} {path}");
        }
        let text = openapi();
        let document: Value = serde_json::from_str(&text).unwrap();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
