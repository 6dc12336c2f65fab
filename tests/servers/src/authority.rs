//! An authority that issues certificates, for servers with TLS.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use crate::{account, folder};

/// Issues certificates that nobody trusts who does not know its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        let name = format!("the tests' authority {}", folder::number());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let file = folder::new("authority").join("ca.pem");
        fs::write(&file, certificate.pem()).expect("the folder is new");
        Authority {
            issuer: Issuer::new(params, key),
            file,
        }
    }

    /// The file of its certificate.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes `server.crt` and `server.key` for this name and this address.
    pub(crate) fn issue(&self, name: &str, address: IpAddr, folder: &Path) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::IpAddress(address));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        for (file, text) in [
            ("server.crt", certificate.pem()),
            ("server.key", key.serialize_pem()),
        ] {
            let file = folder.join(file);
            fs::write(&file, text).expect("the folder is the test's own");
            fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("it was made");
            account::give(&file);
        }
    }
}
