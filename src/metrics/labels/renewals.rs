//! Labels of the life of a token: how it is found, how it is renewed, which answers cannot be read.

use super::{label, labels};

labels!(
    /// Labels of `token_lookups_total`.
    LookupLabels {
        /// What was found.
        freshness: Freshness,
    }
);

label!(
    /// The state of credentials at a lookup (RFC 9111's words).
    Freshness {
        /// Used as they are.
        Fresh = "fresh",
        /// Used, with a renewal in the background.
        Stale = "stale",
        /// In memory, expired or rejected.
        Expired = "expired",
        /// Not in memory.
        Absent = "absent",
    }
);

labels!(
    /// Labels of `renewals_total`.
    RenewalLabels {
        /// By which grant.
        grant: Grant,
        /// What asked for it.
        trigger: Trigger,
        /// How it ended.
        result: RenewalResult,
    }
);

labels!(
    /// Labels of `renewal_duration_seconds`.
    GrantLabel {
        /// By which grant.
        grant: Grant,
    }
);

label!(
    /// The two grants.
    Grant {
        /// With the RefreshToken.
        Refresh = "refresh",
        /// With DeviceToken and InstanceKey, or email and password.
        Login = "login",
    }
);

label!(
    /// What asked for a renewal.
    Trigger {
        /// A stale token in use.
        Ahead = "ahead",
        /// A 401.
        Rejected = "rejected",
        /// No usable token.
        Missing = "missing",
        /// An idle pair growing old.
        Keep = "keep",
        /// An operator; or the guard against mass rejections, whose probe is a login.
        Asked = "asked",
    }
);

label!(
    /// How one grant ended.
    RenewalResult {
        /// New credentials, committed.
        Ok = "ok",
        /// Damoov definitely refused.
        Rejected = "rejected",
        /// No usable answer.
        Failed = "failed",
        /// 429.
        Limited = "limited",
        /// Not tried: budget, block, contested, suspended, breaker or negative cache.
        Refused = "refused",
    }
);

labels!(
    /// Labels of `auth_answers_unreadable_total`.
    UnreadableLabels {
        /// Which endpoint answered.
        endpoint: AuthEndpoint,
        /// What is wrong with the answer.
        reason: Doubt,
    }
);

label!(
    /// The calls whose answers carry tokens.
    AuthEndpoint {
        /// `/v1/Auth/Login`
        Login = "login",
        /// `/v1/Auth/RefreshToken`
        Refresh = "refresh",
        /// `/v1/Registration/create`
        Registration = "registration",
    }
);

label!(
    /// Why an answer with tokens cannot be read.
    Doubt {
        /// Where it ends is ambiguous.
        Framing = "framing",
        /// Its Content-Encoding is unknown or damaged.
        Coding = "coding",
        /// More than 64 KiB, compressed or decoded.
        TooLong = "too_long",
        /// It is not the API's JSON.
        NotJson = "not_json",
        /// A name appears twice in an object.
        NameTwice = "name_twice",
        /// JSON that is neither tokens nor a rejection.
        Unexpected = "unexpected",
    }
);
