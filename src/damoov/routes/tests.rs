//! Which route a path belongs to, and what is said of a path that has none.

use super::*;

fn route(path: &str, host: &str) -> Route {
    Route {
        path: path.into(),
        host: host.to_owned(),
        credential: Credential::Admin,
        methods: Vec::new(),
        replay: Replay::Never,
        response_timeout: None,
    }
}

fn found<'a>(table: &'a Table, method: &Method, path: &str) -> Option<&'a Route> {
    table.find(path, method).map(|route| &**route)
}

#[test]
fn every_path_of_the_api_has_its_host_and_credential() {
    use Credential::{Admin, Answer, Instance, User, UserOrAdmin};
    let table = Table::new(Vec::new(), None);
    for (method, path, host, credential) in [
        ("POST", "/v1/Auth/Login", "user", Answer),
        ("POST", "/v1/Auth/RefreshToken", "user", Answer),
        ("POST", "/v1/Registration/create", "user", Instance),
        ("POST", "/v1/Registration/Create", "user", Instance),
        ("GET", "/v1/Check/UserExists", "user", Instance),
        ("GET", "/v1/Management/users", "user", UserOrAdmin),
        ("PUT", "/v1/Management/Users", "user", UserOrAdmin),
        ("DELETE", "/v1/Management/users", "user", Admin),
        ("GET", "/v1/Management/users/find", "user", Admin),
        ("PUT", "/v1/Management/users/x", "user", Admin),
        (
            "PUT",
            "/v1/Management/users/instances/change",
            "user",
            Admin,
        ),
        (
            "POST",
            "/v1/Management/users/instances/change/CODE",
            "user",
            UserOrAdmin,
        ),
        (
            "POST",
            "/v1/Management/users/images/upload",
            "user",
            UserOrAdmin,
        ),
        ("GET", "/indicators/v1/Scores", "api", User),
        ("GET", "/indicators/v2/Scores", "api", User),
        ("GET", "/indicators/v3/Scores/safety", "api", User),
        ("GET", "/indicators/admin/v3/Scores/safety", "api", Admin),
        ("GET", "/indicators/admin/v2/Scores", "api", Admin),
        ("POST", "/trips/get/v1/", "api", User),
        ("POST", "/trips/get/admin/v1", "api", Admin),
        (
            "GET",
            "/statistics/v1/Scorings/individual/daily",
            "api",
            User,
        ),
        ("GET", "/statistics/v1/Scorings/consolidated", "api", Admin),
        ("GET", "/v1/Applications/x", "accounts", Admin),
        ("GET", "/v1/applications/x", "accounts", Admin),
        ("GET", "/v1/companies/x", "accounts", Admin),
        ("GET", "/v1/Instances/x", "accounts", Admin),
        ("GET", "/auth/permissions", "portal-apis", Admin),
        ("GET", "/v1/Permissions/x", "portal-apis", Admin),
        (
            "GET",
            "/realtime/api/v1/devices",
            "portal-apis",
            UserOrAdmin,
        ),
        (
            "GET",
            "/realtime/api/v1/ws/realtime",
            "portal-apis",
            UserOrAdmin,
        ),
        ("GET", "/mobilesdk/stage/x", "mobilesdk", User),
        ("GET", "/api/rewarding/x", "mobilesdk", User),
        ("GET", "/v1/Leaderboard", "leaderboard", UserOrAdmin),
        ("GET", "/v1/Leaderboard/user", "leaderboard", UserOrAdmin),
    ] {
        let route = found(&table, &method.parse().unwrap(), path).expect(path);
        assert_eq!(route.host, format!("{host}.telematicssdk.com"), "{path}");
        assert_eq!(route.credential, credential, "{method} {path}");
        assert_eq!(
            route.replay == Replay::Never,
            credential == Instance,
            "{path}"
        );
    }
}

#[test]
fn a_path_outside_the_table_is_unknown_unless_there_is_a_default_host() {
    let paths = [
        "/",
        "/indicators",
        "/indicators/v33",
        "/v1/registration/create/x",
        "/v1/check/userexists/x",
        "/trips",
    ];
    let strict = Table::new(Vec::new(), None);
    let open = Table::new(Vec::new(), Some("other.example".to_owned()));
    for path in paths {
        assert_eq!(found(&strict, &Method::GET, path), None, "{path}");
        let route = found(&open, &Method::GET, path).unwrap();
        assert_eq!(
            (route.host.as_str(), route.credential, &**route.label()),
            ("other.example", Credential::User, "/")
        );
    }
    let known = found(&open, &Method::GET, "/indicators/v3/x").unwrap();
    assert_eq!(known.host, "api.telematicssdk.com");
}

#[test]
fn other_spellings_of_a_path_take_the_same_route() {
    let table = Table::new(Vec::new(), Some("other.example".to_owned()));
    for path in [
        "/V1/AUTH/login",
        "/v1/auth/LOGIN/",
        "/v1/%41uth/Login",
        "/%76%31/%61%55%74%68/x",
    ] {
        let route = found(&table, &Method::POST, path).unwrap();
        assert_eq!(route.credential, Credential::Answer, "{path}");
    }
}

#[test]
fn literal_segments_win_over_dollar_over_methods_over_the_built_in_table() {
    let get = |path| Route {
        methods: vec![Method::GET],
        ..route(path, "get")
    };
    let table = Table::new(
        vec![
            route("/a", "prefix"),
            get("/a"),
            route("/a$", "exact"),
            route("/a/*/c", "star"),
            route("/a/b/c", "literal"),
            route("/Indicators/V3", "mine"),
            route("/indicators/v3", "second"),
        ],
        None,
    );
    for (method, path, host) in [
        (Method::GET, "/a", "exact"),
        (Method::GET, "/a/x", "get"),
        (Method::PUT, "/a/x", "prefix"),
        (Method::GET, "/a/x/c/d", "star"),
        (Method::GET, "/a/b/c", "literal"),
        (Method::GET, "/indicators/v3/x", "mine"),
    ] {
        assert_eq!(found(&table, &method, path).unwrap().host, host, "{path}");
    }
}

#[test]
fn a_route_for_other_methods_does_not_match() {
    let table = Table::new(
        vec![Route {
            methods: vec![Method::GET],
            ..route("/a", "x")
        }],
        None,
    );
    assert_eq!(found(&table, &Method::POST, "/a"), None);
}

#[test]
fn every_built_in_path_passes_the_check_of_configured_ones() {
    for route in built_in() {
        assert_eq!(route.check(), Ok(()), "{}", route.path);
    }
}

#[test]
fn a_malformed_path_is_refused_with_its_reason() {
    for (path, error) in [
        ("", PathError::NoLeadingSlash),
        ("$", PathError::NoLeadingSlash),
        ("a/b", PathError::NoLeadingSlash),
        ("/a/", PathError::EmptySegment),
        ("/a//b", PathError::EmptySegment),
        ("/a/$", PathError::MisplacedDollar),
        ("/a$/b", PathError::MisplacedDollar),
        ("/a$$", PathError::MisplacedDollar),
        ("/a/../b", PathError::DotSegment),
        ("/./b", PathError::DotSegment),
        ("/a*/b", PathError::PartialWildcard),
        ("/**", PathError::PartialWildcard),
        ("/a b", PathError::Character),
        ("/a?b", PathError::Character),
        ("/%41", PathError::Character),
        ("/a;b", PathError::Character),
        ("/ü", PathError::Character),
    ] {
        assert_eq!(route(path, "x").check(), Err(error), "{path:?}");
    }
    for path in ["/", "/$", "/a", "/a/*/b$", "/*"] {
        assert_eq!(route(path, "x").check(), Ok(()), "{path}");
    }
}

proptest::proptest! {
    #[test]
    fn any_path_is_looked_up_without_a_panic(path in "\\PC*") {
        Table::new(Vec::new(), None).find(&path, &Method::GET);
        let _ = route(&path, "x").check();
    }
}
