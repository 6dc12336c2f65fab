//! Whose certificates are trusted. Opens no connection.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::Invalid;

/// Trusted certificates. Two are equal if they are the same certificates, whenever they were read.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    /// For connections; offers HTTP/1.1 alone.
    pub(super) config: Arc<ClientConfig>,
    /// What `config` trusts, which it does not say itself.
    roots: Arc<RootCertStore>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Trust) -> bool {
        self.roots.roots == other.roots.roots
    }
}

impl Trust {
    /// Trusts the platform's certificates, or Mozilla's if it has none, and those of `ca_file`.
    pub(super) fn read(ca_file: Option<&Path>) -> Result<Trust, Invalid> {
        let roots = Arc::new(roots(ca_file)?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has every default version")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Trust {
            config: Arc::new(config),
            roots,
        })
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Invalid> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!("the platform has no trusted certificates; using the built-in ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(path) = ca_file {
        let unreadable = |source| Invalid::CaFile {
            path: path.to_owned(),
            source,
        };
        let mut found = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            found = true;
            roots
                .add(certificate.map_err(unreadable)?)
                .map_err(|source| Invalid::Certificate {
                    path: path.to_owned(),
                    source,
                })?;
        }
        if !found {
            return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
        }
    }
    Ok(roots)
}
