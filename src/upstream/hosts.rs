//! How the hosts of the API are reached: whose certificates are trusted, and which hosts are
//! redirected. Makes targets of public names; opens no connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::HeaderValue;
use http::uri::Authority;
use rustls::pki_types::ServerName;

use super::target::TargetId;
use super::trust::Trust;
use super::{Condition, Dial, Invalid, Redirects, Scheme, Settings, Target, Targets};

/// How hosts are reached: shared by all workers and by everything else that calls the API.
#[derive(Clone, Debug)]
pub struct Hosts {
    trust: Trust,
    redirects: Redirects,
    dial: Dial,
    /// The targets that were made so far. The same target, made again, gets the id and the condition
    /// that it had: connections to it and what is known of it stay. Behind a lock because the clones
    /// of this share it; it is taken only when a configuration is read.
    made: Arc<Mutex<Vec<Made>>>,
}

/// A target that was made.
#[derive(Debug)]
struct Made {
    name: Box<str>,
    trust: Trust,
    target: Target,
}

impl Made {
    /// Whether anything but this list has the target.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.target.condition) > 1
    }
}

impl Hosts {
    /// Reads the trusted certificates: the platform's, or Mozilla's if the platform has none,
    /// and those of `ca_file`.
    pub fn new(settings: &Settings) -> Result<Hosts, Invalid> {
        let redirects = &settings.redirects;
        for redirect in redirects.hosts.values().chain(&redirects.all_others) {
            parse(&redirect.authority)?;
        }
        Ok(Hosts {
            trust: Trust::read(settings.ca_file.as_deref())?,
            redirects: redirects.clone(),
            dial: Dial::default(),
            made: Arc::default(),
        })
    }

    /// The hosts as other settings say. Targets that stay as they are keep their connections.
    pub fn updated(&self, settings: &Settings) -> Result<Hosts, Invalid> {
        let new = Hosts::new(settings)?;
        let mut made = self.made.lock().expect("no code panics under this lock");
        made.retain(Made::is_in_use);
        Ok(Hosts {
            // With the sessions that TLS can resume.
            trust: match new.trust == self.trust {
                true => self.trust.clone(),
                false => new.trust,
            },
            dial: self.dial.clone(),
            made: self.made.clone(),
            ..new
        })
    }

    /// Whether the same certificates are trusted.
    pub fn trust_as(&self, other: &Hosts) -> bool {
        self.trust == other.trust
    }

    /// The same hosts, reached another way than by TCP.
    #[cfg(any(test, feature = "internals"))]
    pub fn dialed_by(self, dial: Dial) -> Hosts {
        Hosts {
            dial,
            made: Arc::default(),
            ..self
        }
    }

    /// Where each of `hosts`, public names in lower case, is reached.
    pub fn targets<'h>(&self, hosts: impl Iterator<Item = &'h str>) -> Result<Targets, Invalid> {
        let mut targets = Targets::default();
        for host in hosts {
            if targets.get(host).is_none() {
                targets.0.push((host.into(), self.target(host)?));
            }
        }
        Ok(targets)
    }

    /// Where `host`, a public name in lower case, is reached.
    pub fn target(&self, host: &str) -> Result<Target, Invalid> {
        let (scheme, authority) = match self.redirects.of(host) {
            Some(redirect) => (redirect.scheme, redirect.authority.as_str()),
            None => (Scheme::Https, host),
        };
        let (authority, name) = parse(authority)?;
        let mut made = self.made.lock().expect("no code panics under this lock");
        let known = made.iter().find(|made| {
            *made.name == *host
                && made.target.scheme == scheme
                && made.target.authority == authority
                && made.trust == self.trust
        });
        if let Some(known) = known {
            return Ok(known.target.clone());
        }
        let target = Target {
            id: next_id(),
            scheme,
            host: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
            name,
            tls: self.trust.config.clone(),
            dial: self.dial.clone(),
            condition: Arc::new(Condition::of(host, authority.as_str())),
            authority,
        };
        made.push(Made {
            name: host.into(),
            trust: self.trust.clone(),
            target: target.clone(),
        });
        Ok(target)
    }
}

/// Reads `host` or `host:port`, and the name that a certificate must have there.
fn parse(authority: &str) -> Result<(Authority, ServerName<'static>), Invalid> {
    let authority: Authority = authority
        .parse()
        .map_err(|error| Invalid::Authority(authority.to_owned(), error))?;
    let bare = authority.host().trim_matches(['[', ']']);
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|error| Invalid::Name(bare.to_owned(), error))?;
    Ok((authority, name))
}

fn next_id() -> TargetId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    TargetId(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::fixture::{HOST, settings, tls};

    fn id(hosts: &Hosts) -> TargetId {
        hosts.target(HOST).unwrap().id
    }

    #[test]
    fn a_target_is_the_same_one_if_it_is_reached_in_the_same_way() {
        let plain = |authority: &str| settings(Scheme::Http, authority.to_owned(), None);
        let hosts = Hosts::new(&plain("one:80")).unwrap();
        let first = hosts.target(HOST).unwrap();
        assert_eq!(id(&hosts.updated(&plain("one:80")).unwrap()), first.id);
        let (_, folder) = tls("localhost", &[]);
        for other in [
            plain("two:80"),
            plain("one:81"),
            settings(Scheme::Https, "one:80".to_owned(), None),
            settings(
                Scheme::Http,
                "one:80".to_owned(),
                Some(folder.path().join("ca.pem")),
            ),
        ] {
            assert_ne!(id(&hosts.updated(&other).unwrap()), first.id, "{other:?}");
        }
        assert_ne!(hosts.target("other.example").unwrap().id, first.id);
        // Whatever came between, it is the one that it was.
        assert_eq!(id(&hosts), first.id);
        assert_ne!(id(&Hosts::new(&plain("one:80")).unwrap()), first.id);
    }

    #[test]
    fn targets_that_nobody_has_are_forgotten() {
        let plain = |port: u16| settings(Scheme::Http, format!("one:{port}"), None);
        let mut hosts = Hosts::new(&plain(1)).unwrap();
        for port in 2..100 {
            hosts.target(HOST).unwrap();
            hosts = hosts.updated(&plain(port)).unwrap();
        }
        assert_eq!(hosts.made.lock().unwrap().len(), 0);
    }
}
