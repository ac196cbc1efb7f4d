//! A LiteLLM proxy that runs as long as the test.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

pub(crate) const KEY: &str = "sk-test-master-key";

/// How long it may take to start. On a slow machine it needs most of a minute.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Proxy {
    port: u16,
    // Killed when it is dropped.
    _child: Child,
}

impl Proxy {
    /// Starts it, and waits until it answers.
    pub(crate) async fn start(executable: &OsStr) -> Self {
        let port = free_port();
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("litellm-proxy.log");
        let config: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "litellm", "proxy.yaml"]
            .iter()
            .collect();
        let mut child = Command::new(executable)
            .arg("--config")
            .arg(config)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            // It would look for prices on the Internet first.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .expect("SOE_TEST_LITELLM names an executable");
        let start = Instant::now();
        while !is_alive(port).await {
            let ended = child.try_wait().unwrap();
            if ended.is_some() || start.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the proxy didn't start ({ended:?}), and said:\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Self { port, _child: child }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }
}

/// A port that nobody listened on just now; the proxy can't choose one itself and say which.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn is_alive(port: u16) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let request = "GET /health/liveliness HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    socket.write_all(request.as_bytes()).await.is_ok()
        && socket.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
