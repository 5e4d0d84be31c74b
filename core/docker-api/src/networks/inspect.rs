//! `GET /networks/{id}`.

use super::shape;
use crate::call::{Answer, Call};
use crate::reply;
use bulkhead_engine::EngineError;
use bulkhead_model::network::{NO_NETWORK, predefined_id};

pub async fn get(call: Call) -> Answer {
    if call.query.text("scope").is_some_and(|scope| scope != "local") {
        return Err(EngineError::NoSuchNetwork(call.name).into());
    }
    let found = call.engine().network(&call.session, &call.name).await;
    let none = predefined_id(call.state.vch, NO_NETWORK);
    let is_none = call.name == NO_NETWORK || (!call.name.is_empty() && none.as_str().starts_with(&call.name));
    let (network, mut shape) = match found {
        Ok(network) => (Some(network.clone()), shape::network(&network)),
        Err(EngineError::NoSuchNetwork(_)) if is_none => {
            (None, shape::none(&call.engine().system(&call.session).await?))
        }
        Err(error) => return Err(error.into()),
    };
    let containers = call.engine().containers(&call.session).await?;
    shape.insert("Containers".into(), shape::containers(&containers, network.as_ref()).into());
    reply::ok(&shape)
}
