//! Which calls a fault concerns.

use serde::{Deserialize, Serialize};

/// Which calls a rule concerns; in JSON `"login"`, `"refresh"`, `"registration"`, `"auth"`,
/// `"data"`, `"all"`, or a path prefix like `"/trips"` (without regard to case).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum On {
    /// Every call.
    #[default]
    All,
    /// `/v1/Auth/Login`.
    Login,
    /// `/v1/Auth/RefreshToken`.
    Refresh,
    /// `/v1/Registration/create`.
    Registration,
    /// These three.
    Auth,
    /// Every other call.
    Data,
    /// Calls whose path begins like this.
    Path(String),
}

const WORDS: [(&str, On); 6] = [
    ("all", On::All),
    ("login", On::Login),
    ("refresh", On::Refresh),
    ("registration", On::Registration),
    ("auth", On::Auth),
    ("data", On::Data),
];

impl TryFrom<String> for On {
    type Error = &'static str;

    fn try_from(text: String) -> Result<On, &'static str> {
        if text.starts_with('/') {
            return Ok(On::Path(text));
        }
        WORDS
            .into_iter()
            .find(|(word, _)| *word == text)
            .map(|(_, on)| on)
            .ok_or("`on` is all, login, refresh, registration, auth, data, or a path like /trips")
    }
}

impl From<On> for String {
    fn from(on: On) -> String {
        if let On::Path(prefix) = on {
            return prefix;
        }
        let word = WORDS.into_iter().find(|(_, known)| *known == on);
        word.map(|(text, _)| text.to_owned()).unwrap_or_default()
    }
}

impl On {
    /// Whether a rule for `self` concerns a call of `endpoint` ([`On::Login`], [`On::Refresh`],
    /// [`On::Registration`] or [`On::Data`]) at `path`.
    pub(super) fn concerns(&self, endpoint: &On, path: &str) -> bool {
        match self {
            On::All => true,
            On::Auth => *endpoint != On::Data,
            On::Path(prefix) => path
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            exactly => exactly == endpoint,
        }
    }
}
