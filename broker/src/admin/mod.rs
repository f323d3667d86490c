//! The admin listener over HTTP (`broker/docs/admin.md` lists its paths), on a thread of its own beside the shards. It
//! reads what the shards publish and never asks them.

mod connections;
mod latencies;
mod load;
mod metrics;
mod page;

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use self::latencies::Latencies;
use crate::shard::Shared;

/// Time between two rounds of fetching what the shards hand over.
const COLLECT_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error(
        "'{0}' is not an address of this host: {1}; give --admin HOST:PORT with a host that resolves here"
    )]
    Resolve(String, io::Error),
    #[error(
        "{0} is taken by another program; stop it, or choose another port with --admin (0 takes a free one)"
    )]
    Taken(SocketAddr),
    #[error("cannot listen on {0}: {1}; choose another address with --admin")]
    Listen(SocketAddr, io::Error),
    #[error("cannot start the admin thread: {0}")]
    Start(#[from] io::Error),
}

/// Binds `address` (HOST:PORT); port 0 takes a free one.
pub(crate) fn bind(address: &str) -> Result<TcpListener, AdminError> {
    let no_address = || io::Error::other("no address found");
    let resolved = address
        .to_socket_addrs()
        .and_then(|mut found| found.next().ok_or_else(no_address))
        .map_err(|e| AdminError::Resolve(address.to_owned(), e))?;
    TcpListener::bind(resolved).map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => AdminError::Taken(resolved),
        _ => AdminError::Listen(resolved, e),
    })
}

/// What the admin thread has.
struct Admin {
    shared: Arc<Shared>,
    /// Only this thread takes it, and never across an await: it is a cell that the web framework lets be shared.
    latencies: Mutex<Latencies>,
}

impl Admin {
    fn new(shared: Arc<Shared>) -> Admin {
        let latencies = Mutex::new(Latencies::new(shared.shards, Instant::now()));
        Admin { shared, latencies }
    }

    /// The latencies, with what the shards have handed over up to now.
    fn latencies(&self, now: Instant) -> MutexGuard<'_, Latencies> {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        latencies.collect(&self.shared, now);
        latencies
    }
}

/// Serves `listener` until the process ends.
pub(crate) fn start(listener: TcpListener, shared: Arc<Shared>) -> Result<(), AdminError> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let admin = Arc::new(Admin::new(shared));
    let serve = move || {
        let outcome = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let routes = Router::new()
                .route("/", get(page::page))
                .route("/health", get(health))
                .route("/metrics", get(metrics_page))
                .route("/histograms", get(histograms_page))
                .route("/load", get(load_page))
                .route("/connections", get(connections_page))
                .with_state(admin.clone());
            tokio::spawn(collect(admin));
            axum::serve(listener, routes).await
        });
        if let Err(error) = outcome {
            tracing::error!("admin listener ended: {error}");
        }
    };
    std::thread::Builder::new().name("admin".to_owned()).spawn(serve)?;
    Ok(())
}

/// Fetches what the shards hand over for as long as the process lives, whether anybody looks or not.
async fn collect(admin: Arc<Admin>) {
    loop {
        tokio::time::sleep(COLLECT_INTERVAL).await;
        drop(admin.latencies(Instant::now()));
    }
}

/// This listener starts when all shards accept, and a shard that fails ends the process: who answers is well.
async fn health() -> &'static str {
    "ok\n"
}

async fn metrics_page(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render(&admin.shared))
}

async fn histograms_page(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let now = Instant::now();
    ([(CONTENT_TYPE, "application/json")], admin.latencies(now).render(now))
}

async fn load_page(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let uptime = admin.latencies(Instant::now()).uptime(Instant::now());
    ([(CONTENT_TYPE, "application/json")], load::render(&admin.shared, uptime))
}

async fn connections_page(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> impl IntoResponse {
    match connections::Asked::parse(query.as_deref().unwrap_or_default()) {
        Ok(asked) => {
            let page = connections::render(&admin.shared.connections, asked);
            (StatusCode::OK, [(CONTENT_TYPE, "application/json")], page)
        }
        Err(error) => (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "text/plain; charset=utf-8")], error),
    }
}
