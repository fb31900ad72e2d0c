//! A server with its database, its shares, and a client for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use trix_api::{ApiConfig, Server};
use trix_db::{Db, ProtocolTimes};
use trix_storage::share::{Root, Roots, ShareRole};
use trix_testkit::pg::TestDb;

/// Engine that the server pins plans to.
pub const ENGINE: &str = "test-engine";
/// Password of the first account.
pub const PASSWORD: &str = "correct horse battery";

/// The pace of tests; deadlines of answers stay wide, because the machine may be busy.
pub fn times() -> ProtocolTimes {
    let real = ProtocolTimes::default();
    ProtocolTimes {
        connect: real.connect,
        statement: real.statement,
        answer: real.answer,
        mount_deadline: real.mount_deadline,
        ..real.scaled(0.1)
    }
}

/// A running server.
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its database.
    pub db: Db,
    /// Shares (`in`, `archive`, `output`, `preview`) and state folder (`state`).
    pub folder: TempDir,
    client: reqwest::Client,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    _keep: Option<TestDb>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum As {
    /// Somebody with a session cookie, `name=secret`.
    Cookie(String),
    /// A program.
    Token(String),
    /// Nobody.
    Nobody,
}

impl Service {
    /// A server over a database of its own.
    pub async fn start() -> Service {
        let keep = TestDb::new().await.expect("a test database");
        let mut service = Service::over(keep.db_with(times())).await;
        service._keep = Some(keep);
        service.wait_ready().await;
        service
    }

    /// A server over a database that may be away.
    pub async fn over(db: Db) -> Service {
        Service::with(db, |_| {}).await
    }

    /// A server with another configuration.
    pub async fn with(db: Db, change: impl FnOnce(&mut ApiConfig)) -> Service {
        // A second server of the same test finds it set.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let folder = tempfile::Builder::new().prefix("trix-api-").tempdir_in("/var/tmp").unwrap();
        let mut roots = Vec::new();
        for (name, role) in [
            ("in", ShareRole::Source),
            ("archive", ShareRole::Output),
            ("output", ShareRole::Output),
            ("preview", ShareRole::Preview),
        ] {
            let root = folder.path().join(name);
            std::fs::create_dir(&root).unwrap();
            roots.push((name.parse().unwrap(), Root { root, role }));
        }
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let mut config = ApiConfig::new(db.clone(), state);
        config.listen.set_port(0);
        config.shares = Roots::new(roots);
        config.engine = Some(ENGINE.to_owned());
        change(&mut config);
        let cancel = CancellationToken::new();
        let server = Server::bind(config, cancel.clone()).await.expect("a free port");
        let address = server.address();
        let task = tokio::spawn(server.run());
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Service { address, db, folder, client, cancel, task, _keep: None }
    }

    /// Waits until the database answers, the shares are known and the set-up link is made.
    pub async fn wait_ready(&self) {
        until("the server is ready", async || {
            self.get("/readyz", &As::Nobody).await.status() == StatusCode::OK
                && self.db.profiles().await.is_ok_and(|p| !p.is_empty())
                && self.path("state").join("first-login").exists()
        })
        .await;
    }

    /// A folder of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes the database behind the server's back, for what cannot be brought about else.
    pub async fn sql(&self, sql: &str) {
        let keep = self._keep.as_ref().expect("a service with a database of its own");
        keep.execute(sql).await.unwrap();
    }

    /// A request by `who`.
    pub fn request(&self, method: Method, path: &str, who: &As) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        match who {
            As::Cookie(cookie) => request.header(header::COOKIE, cookie),
            As::Token(secret) => request.bearer_auth(secret),
            As::Nobody => request,
        }
    }

    /// GET.
    pub async fn get(&self, path: &str, who: &As) -> Response {
        self.request(Method::GET, path, who).send().await.expect("an answer")
    }

    /// GET of a document that must be there.
    pub async fn read(&self, path: &str, who: &As) -> Value {
        let response = self.get(path, who).await;
        let status = response.status();
        let body: Value = response.json().await.expect("a JSON document");
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// POST of a body.
    pub async fn post(&self, path: &str, who: &As, body: &Value) -> Response {
        self.request(Method::POST, path, who).json(body).send().await.expect("an answer")
    }

    /// The token of the set-up link in the state folder.
    pub fn set_up_token(&self) -> String {
        let link = std::fs::read_to_string(self.path("state").join("first-login")).unwrap();
        link.trim().split_once("#token=").expect("a link with a token").1.to_owned()
    }

    /// Sets the first account up.
    pub async fn admin(&self) -> As {
        let body = json!({ "token": self.set_up_token(), "name": "ann", "password": PASSWORD });
        let response = self.post("/api/v1/session/setup", &As::Nobody, &body).await;
        assert_eq!(response.status(), StatusCode::OK, "{:?}", response.text().await);
        cookie_of(&response)
    }

    /// A token of a program with a role.
    pub async fn token(&self, admin: &As, name: &str, role: &str) -> As {
        let body = json!({ "name": name, "role": role });
        let response = self.post("/api/v1/tokens", admin, &body).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let body: Value = response.json().await.unwrap();
        As::Token(body["secret"].as_str().unwrap().to_owned())
    }

    /// Writes a file on the source share.
    pub fn deliver(&self, name: &str, content: &[u8]) {
        let path = self.path("in").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Submits a job and gives status and body.
    pub async fn submit(&self, who: &As, key: &str, body: &Value) -> (StatusCode, Value) {
        let response = self
            .request(Method::POST, "/api/v1/jobs", who)
            .header("Idempotency-Key", key)
            .json(body)
            .send()
            .await
            .expect("an answer");
        (response.status(), response.json().await.expect("a JSON document"))
    }

    /// Ends the server and waits for it.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        (&mut self.task).await.expect("no panic").expect("a clean end");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.task.abort();
    }
}

/// The session cookie that a response sets.
pub fn cookie_of(response: &Response) -> As {
    let set = response.headers().get(header::SET_COOKIE).expect("a cookie").to_str().unwrap();
    As::Cookie(set.split(';').next().unwrap().to_owned())
}

/// Waits until something holds; a test that never sees it fails.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain until {what}");
}

/// Status and code of a refusal.
pub async fn problem(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE).cloned();
    let body: Value = response.json().await.expect("a problem document");
    assert_eq!(kind.unwrap(), "application/problem+json", "{body}");
    assert_eq!(body["status"], status);
    (status, body)
}
