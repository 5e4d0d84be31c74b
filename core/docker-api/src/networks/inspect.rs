//! `GET /networks/{id}`.

use super::shape;
use crate::call::{Answer, Call};
use crate::reply;
use bulkhead_engine::EngineError;
use bulkhead_model::network::predefined_id;

pub async fn get(call: Call) -> Answer {
    if call.query.text("scope").is_some_and(|scope| scope != "local") {
        return Err(EngineError::NoSuchNetwork(call.name).into());
    }
    let found = call.engine().network(&call.session, &call.name).await;
    let is_meant = |name: &str| {
        let id = predefined_id(call.state.vch, name);
        call.name == name || (!call.name.is_empty() && id.as_str().starts_with(&call.name))
    };
    let standing = shape::STANDING.into_iter().find(|(name, _)| is_meant(name));
    let containers = call.engine().containers(&call.session).await?;
    let (on, mut shape) = match (found, standing) {
        (Ok(network), _) => (shape::containers(&containers, &network), shape::network(&network)),
        (Err(EngineError::NoSuchNetwork(_)), Some(one)) => {
            let facts = call.engine().system(&call.session).await?;
            (shape::containers_of_standing(&containers, one.0), shape::standing(&facts, one))
        }
        (Err(error), _) => return Err(error.into()),
    };
    shape.insert("Containers".into(), on.into());
    reply::ok(&shape)
}
