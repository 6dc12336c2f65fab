//! How any call is answered: by its path, by the control API, an Auth endpoint or a data endpoint.

use http::Request;
use hyper::body::Incoming;

use super::answer::{Answer, Cut};
use super::doors::Visitor;
use super::world::World;
use super::{api, auth, control};

/// Answers one call of this client.
pub(super) async fn answer(
    world: &World,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Answer, Cut> {
    let path = request.uri().path();
    if let Some(command) = path.strip_prefix("/_control") {
        let command = command.trim_matches('/').to_owned();
        return control::answer(world, &command, request).await;
    }
    match auth::endpoint(path) {
        Some(endpoint) => auth::answer(world, endpoint, visitor, request).await,
        None => api::answer(world, visitor, request).await,
    }
}
