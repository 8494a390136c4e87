//! What the API promises, as a document. A test keeps it in step with the route table.

use http::StatusCode;

use super::body::answer;
use super::call::Call;
use super::routes::Answer;

pub(crate) const DOCUMENT: &str = include_str!("../../../../openapi.json");

pub(crate) async fn document(_call: Call) -> Answer {
    Ok(answer(StatusCode::OK, DOCUMENT))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::DOCUMENT;
    use crate::api::kinds;
    use crate::api::routes::{self, Access};

    /// Method, path, query parameters, scope.
    type Promise = (String, String, BTreeSet<String>, Option<String>);

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("openapi.json is JSON")
    }

    /// Follows a `$ref` within the document.
    fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let pointer = reference.strip_prefix('#').expect("references stay in the document");
        document.pointer(pointer).expect(reference)
    }

    fn promised(document: &Value) -> BTreeSet<Promise> {
        let mut promised = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let query = parameters
                    .map(|parameter| resolved(document, parameter))
                    .filter(|parameter| parameter["in"] == "query")
                    .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
                    .collect();
                let scope = operation["x-scope"].as_str().map(str::to_owned);
                let open = operation["security"].as_array().is_some_and(Vec::is_empty);
                assert_ne!(open, scope.is_some(), "{method} {path} has a scope, or `security: []`");
                promised.insert((method.to_uppercase(), path.clone(), query, scope));
            }
        }
        promised
    }

    #[test]
    fn the_document_promises_the_routes_that_there_are() {
        let routes: BTreeSet<Promise> = routes::all()
            .into_iter()
            .map(|route| {
                let scope = match route.access {
                    Access::Open => None,
                    Access::Needs(scope) => Some(scope.as_str().to_owned()),
                };
                let query = route.query.iter().map(ToString::to_string).collect();
                (route.method.to_string(), route.path.to_owned(), query, scope)
            })
            .collect();
        assert_eq!(promised(&document()), routes);
    }

    #[test]
    fn the_document_names_every_problem_type_but_those_of_the_router() {
        let responses = document()["components"]["responses"].to_string();
        for kind in kinds::ALL.iter().filter(|kind| **kind != &kinds::METHOD_NOT_ALLOWED) {
            assert!(responses.contains(&format!("`{}`", kind.slug)), "openapi.json names {}", kind.slug);
        }
    }
}
