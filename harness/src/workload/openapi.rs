//! The protected operations of the running system's own OpenAPI document: what auth probes enumerate.

use serde_json::Value;

/// One operation that asks for a session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtectedOperation {
    /// Upper case.
    pub method: &'static str,
    /// The path as the document writes it, e.g. `/v1/scenarios/{id}`.
    pub route: String,
    /// A GET of one whole answer that names no object: anybody signed in can send it.
    pub is_plain_read: bool,
}

impl ProtectedOperation {
    /// `GET /v1/me`.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.route)
    }
}

const METHODS: [(&str, &str); 5] =
    [("get", "GET"), ("post", "POST"), ("put", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")];

/// Every operation of `document` that requires security, its own or the document's, ascending.
///
/// # Errors
/// Where there is none: a document that protects nothing leaves nothing to probe.
pub fn protected_operations(document: &Value) -> anyhow::Result<Vec<ProtectedOperation>> {
    let by_default = document.get("security").is_some_and(requires);
    let paths = document["paths"].as_object().map(|paths| paths.iter()).into_iter().flatten();
    let mut found: Vec<ProtectedOperation> = paths
        .flat_map(|(route, operations)| {
            METHODS.iter().filter_map(move |(key, method)| {
                let operation = operations.get(key)?;
                let protected = operation.get("security").map_or(by_default, requires);
                let streams = operation["responses"]["200"]["content"].get("text/event-stream").is_some();
                let is_plain_read = *method == "GET" && !route.contains('{') && !streams;
                protected.then(|| ProtectedOperation { method, route: route.clone(), is_plain_read })
            })
        })
        .collect();
    found.sort();
    anyhow::ensure!(!found.is_empty(), "the OpenAPI document protects no operation");
    Ok(found)
}

/// A list with at least one requirement and no empty one, which would make security optional.
fn requires(security: &Value) -> bool {
    let alternatives = security.as_array().map(Vec::as_slice).unwrap_or_default();
    !alternatives.is_empty()
        && alternatives.iter().all(|alternative| alternative.as_object().is_some_and(|names| !names.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_operations_with_a_requirement_are_protected() {
        let document = json!({"paths": {
            "/v1/me": {"get": {"security": [{"bearer": []}]}},
            "/v1/login": {"post": {}},
            "/livez": {"get": {"security": []}},
            "/v1/users/{id}": {"get": {"security": [{"bearer": []}]}},
            "/v1/events": {"get": {"security": [{"bearer": []}],
                "responses": {"200": {"content": {"text/event-stream": {}}}}}},
        }});
        let found = protected_operations(&document).expect("three");
        let names: Vec<_> = found.iter().map(|found| (found.name(), found.is_plain_read)).collect();
        let expected = [("GET /v1/events", false), ("GET /v1/me", true), ("GET /v1/users/{id}", false)];
        assert_eq!(names, expected.map(|(name, plain)| (name.to_owned(), plain)));
    }

    #[test]
    fn the_documents_default_holds_where_an_operation_says_nothing() {
        let document = json!({"security": [{"bearer": []}], "paths": {
            "/v1/scenarios/{id}": {"put": {}, "get": {}},
            "/v1/login": {"post": {"security": []}},
        }});
        assert_eq!(protected_operations(&document).expect("two").len(), 2);
    }

    #[test]
    fn a_document_that_protects_nothing_is_an_error() {
        assert!(protected_operations(&json!({"paths": {"/livez": {"get": {}}}})).is_err());
    }
}
