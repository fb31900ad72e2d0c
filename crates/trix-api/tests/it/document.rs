//! `ui/openapi.json` is generated from the code and committed.

use std::path::Path;

#[test]
fn the_committed_document_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/openapi.json");
    let committed = std::fs::read_to_string(&path).expect("ui/openapi.json is committed");
    let fresh = trix_api::openapi_json() + "\n";
    assert!(
        committed == fresh,
        "ui/openapi.json is stale; renew it: cargo run -p trix-api --example openapi > ui/openapi.json"
    );
}

#[test]
fn operations_have_names_of_their_own() {
    let document: serde_json::Value = serde_json::from_str(&trix_api::openapi_json()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{method} {path}: {id} is taken");
        }
    }
    assert!(seen.len() > 20);
    assert_eq!(document["openapi"], "3.1.0");
}
