//! An HTTP service with the engine inside.
//!
//! `cargo run -q -p soe-examples --bin 06-axum-service -- --listen 127.0.0.1:8080 --store ./executions`

mod app;
mod error;
mod tools;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use soe_backends::Backends;
use soe_core::config::Config;
use soe_core::runtime::Engine;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Runs workflows behind an HTTP interface.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The folder in which executions are kept; without it, in memory
    #[arg(long)]
    store: Option<PathBuf>,
    /// The workflows to offer; without it, the one that comes with the example
    #[arg(long)]
    workflows: Option<PathBuf>,
    /// How many seconds running executions get to come to rest when the service is stopped
    #[arg(long, default_value_t = 10)]
    grace: u64,
}

/// How long clients may keep a connection open after everything else has ended.
const LAST_CLIENTS: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let yaml = match &args.workflows {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?,
        None => include_str!("workflow.yaml").to_owned(),
    };
    let backends = match &args.store {
        Some(folder) => Backends::file(folder)?,
        None => Backends::memory(),
    };
    let engine = tools::register(Engine::builder()).backends(backends).build()?;
    let app = app::app(engine.clone(), Config::from_yaml(&yaml)?);

    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(serve.into_future());

    stop_requested().await;
    // No new connections from here on. The engine takes no new work, and lets what runs come to rest. Then it ends the event
    // streams, and with them the connections that they keep open.
    drop(stop);
    let report = engine.shutdown(Duration::from_secs(args.grace)).await;
    println!("stopped; {} execution(s) were still running", report.stopped.len());
    if let Ok(ended) = tokio::time::timeout(LAST_CLIENTS, server).await {
        ended??;
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_requested() {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<Option<()>>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}
