//! The routes that are built in (damoov/API.md, "Hosts and credentials"). Data.

use http::Method;

use super::{Credential, Replay, Route};

/// The one route that may switch to WebSocket (damoov/API.md, "Live tracking").
pub(super) const LIVE: &str = "/realtime/api/v1/ws/realtime$";

/// The table of damoov/API.md, "Hosts and credentials".
pub(super) fn built_in() -> impl Iterator<Item = Route> {
    use Credential::{Admin, Answer, Instance, User, UserOrAdmin};
    const ACCOUNTS: &str = "accounts.telematicssdk.com";
    const API: &str = "api.telematicssdk.com";
    const LEADERBOARD: &str = "leaderboard.telematicssdk.com";
    const MOBILE: &str = "mobilesdk.telematicssdk.com";
    const PORTAL: &str = "portal-apis.telematicssdk.com";
    const USER: &str = "user.telematicssdk.com";
    const ALL: &[Method] = &[];
    const GET: &[Method] = &[Method::GET];
    const POST: &[Method] = &[Method::POST];
    const PROFILE: &[Method] = &[Method::GET, Method::PUT];
    [
        ("/v1/Auth", ALL, USER, Answer),
        ("/v1/Registration/create$", ALL, USER, Instance),
        ("/v1/Check/UserExists$", GET, USER, Instance),
        ("/v1/Management/users", ALL, USER, Admin),
        // What users do to themselves; an account may do it for them.
        ("/v1/Management/users$", PROFILE, USER, UserOrAdmin),
        (
            "/v1/Management/users/images/upload$",
            POST,
            USER,
            UserOrAdmin,
        ),
        (
            "/v1/Management/users/instances/change/*$",
            POST,
            USER,
            UserOrAdmin,
        ),
        ("/indicators/v1", ALL, API, User),
        ("/indicators/v2", ALL, API, User),
        ("/indicators/v3", ALL, API, User),
        ("/indicators/admin/v2", ALL, API, Admin),
        ("/indicators/admin/v3", ALL, API, Admin),
        ("/trips/get/v1", ALL, API, User),
        ("/trips/get/admin/v1", ALL, API, Admin),
        ("/statistics/v1/*/individual", ALL, API, User),
        ("/statistics/v1/*/consolidated", ALL, API, Admin),
        ("/v1/Applications", ALL, ACCOUNTS, Admin),
        ("/v1/companies", ALL, ACCOUNTS, Admin),
        ("/v1/Instances", ALL, ACCOUNTS, Admin),
        ("/auth/permissions", ALL, PORTAL, Admin),
        ("/v1/Permissions", ALL, PORTAL, Admin),
        ("/realtime/api/v1", ALL, PORTAL, UserOrAdmin),
        (LIVE, ALL, PORTAL, UserOrAdmin),
        ("/mobilesdk/stage", ALL, MOBILE, User),
        ("/api/rewarding", ALL, MOBILE, User),
        ("/v1/Leaderboard", ALL, LEADERBOARD, UserOrAdmin),
    ]
    .into_iter()
    .map(|(path, methods, host, credential)| Route {
        path: path.into(),
        host: host.to_owned(),
        credential,
        methods: methods.to_vec(),
        // A registration that is sent twice makes two users.
        replay: match credential {
            Instance => Replay::Never,
            _ => Replay::On401,
        },
        response_timeout: None,
    })
}
