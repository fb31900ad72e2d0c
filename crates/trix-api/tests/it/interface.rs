//! The embedded UI; needs a built `ui/dist`.

use reqwest::{Method, StatusCode, header};

use crate::harness::{As, Service};

#[tokio::test]
async fn the_embedded_ui_is_served_with_its_nonce_and_cached_files() {
    let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist/index.html");
    if !dist.exists() {
        println!("SKIP interface: ui/dist was not built");
        return;
    }
    let service = Service::start().await;
    let response = service.get("/interface/jobs/17", &As::Nobody).await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let page = response.text().await.unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.contains(&format!("nonce=\"{nonce}\"")), "{page}");
    assert!(!page.contains("__CSP_NONCE__"));

    let script = page
        .split('"')
        .find(|part| part.starts_with("/interface/assets/") && part.ends_with(".js"))
        .expect("a script");
    let response = service.get(script, &As::Nobody).await;
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    assert!(headers["content-type"].to_str().unwrap().contains("javascript"));
    assert!(headers["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(!response.bytes().await.unwrap().is_empty());
    let known = service
        .request(Method::GET, script, &As::Nobody)
        .header(header::IF_NONE_MATCH, &headers["etag"])
        .send()
        .await
        .unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    service.stop().await;
}
