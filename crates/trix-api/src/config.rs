//! What an API server is started with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use trix_db::Db;
use trix_storage::share::Roots;

/// Port of the service when nothing else is said.
pub const DEFAULT_PORT: u16 = 9001;

/// What an API server is started with. All protocol times come from `db`.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The database; it may be away.
    pub db: Db,
    /// Roots of the shares on this machine. A share of the database that has no
    /// root here can be named in profiles, but not browsed.
    pub shares: Roots,
    /// State folder; `first-login` is written there.
    pub state_dir: PathBuf,
    /// Allows signing in over plain http from other machines.
    pub insecure_http: bool,
    /// Origins that the service is reached by through a proxy, e.g.
    /// `https://trix.example.org`. The first one is used in links.
    pub public_origins: Vec<String>,
    /// Engine that plan 0 is pinned to; when `None`, that of the newest active worker.
    pub engine: Option<String>,
}

impl ApiConfig {
    /// Listens on this machine only, at the default port, without shares.
    pub fn new(db: Db, state_dir: PathBuf) -> ApiConfig {
        ApiConfig {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT),
            db,
            shares: Roots::default(),
            state_dir,
            insecure_http: false,
            public_origins: Vec::new(),
            engine: None,
        }
    }
}
