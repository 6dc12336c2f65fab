//! A Damoov with TLS, and proxies that trust it.

use std::sync::Arc;

use damoov_proxy::simulator::Simulator;
use rcgen::{CertifiedKey, KeyPair};
use rustls::ServerConfig;
use tempfile::TempDir;

use super::builder::{Builder, write_private};
use super::damoov::damoov_with;

/// TLS with this certificate.
pub fn server_tls(made: &CertifiedKey<KeyPair>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.cert.der().clone()],
            made.signing_key.serialize_der().try_into().unwrap(),
        )
        .unwrap()
}

/// A simulated Damoov with TLS, and the certificate that vouches for it.
pub async fn with_tls(name: &str) -> (Simulator, TempDir) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let tls = server_tls(&made);
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.tls = Some(Arc::new(tls));
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    write_private(&folder.path().join("ca.pem"), &made.cert.pem());
    (damoov, folder)
}

/// A proxy that trusts it.
pub fn trusting(proxy: Builder, folder: &TempDir) -> Builder {
    let file = folder.path().join("ca.pem");
    proxy.set("upstream.ca_file", &file.display().to_string())
}
