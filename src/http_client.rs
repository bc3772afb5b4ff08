//! HTTP requests that serve no client: to receivers of alerts, and by the command line.

use std::{error::Error, sync::Arc};

use reqwest::{Client, Response, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::tls;

/// A client for HTTP/1.1, and for HTTPS with `tls`. It pools connections: create one for all requests to a
/// server. It follows no redirect and uses no proxy.
pub fn client(tls: Option<&tls::Client>) -> Result<Client, String> {
    let tls = match tls {
        Some(tls) => ClientConfig::clone(tls.config()),
        None => trusts_nobody()?,
    };
    let built = Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .build();
    built.map_err(|error| why(&error))
}

/// Settings for a client without TLS. Requests with TLS fail.
fn trusts_nobody() -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The innermost cause of `error`. The outer messages repeat the URL, which may hold a secret.
pub fn why(error: &reqwest::Error) -> String {
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(inner) = cause.and_then(Error::source) {
        cause = Some(inner);
    }
    match cause {
        Some(cause) => cause.to_string(),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => "the call failed".to_owned(),
    }
}

/// At most the first `most` bytes of the body of `response`; fewer if it ends or breaks off earlier.
pub async fn beginning(mut response: Response, most: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < most
        && let Ok(Some(part)) = response.chunk().await
    {
        read.extend_from_slice(&part[..part.len().min(most - read.len())]);
    }
    read
}
