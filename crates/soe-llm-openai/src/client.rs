//! The HTTP client.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::BuildError;

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pub(crate) timeout: Duration,
    pub(crate) proxies: bool,
}

/// A client that sends these headers. It follows no redirects: they could carry the key to another host.
pub(crate) fn build(
    connections: &Connections,
    headers: HeaderMap,
    encrypted: bool,
) -> Result<reqwest::Client, BuildError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(encrypted)?)
        .redirect(Policy::none())
        .connect_timeout(connections.timeout)
        .user_agent(concat!("soe-llm-openai/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers);
    if !connections.proxies {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| BuildError::Client(error.into()))
}

/// TLS that trusts what the system trusts. A plain endpoint works on a system without certificates too.
fn tls(needed: bool) -> Result<ClientConfig, BuildError> {
    let builder = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| BuildError::Client(error.into()))
    };
    match builder()?.with_platform_verifier() {
        Ok(builder) => Ok(builder.with_no_client_auth()),
        Err(error) if needed => Err(BuildError::Client(error.into())),
        Err(_) => Ok(builder()?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()),
    }
}
