//! `POST /networks/{id}/connect` and `/disconnect`.

use crate::call::{Answer, Call};
use crate::create::network::wish;
use crate::error::ApiError;
use crate::json::{self, Fields};
use crate::{body, reply};
use http::StatusCode;

pub async fn connect(mut call: Call) -> Answer {
    let fields = Fields::of("", json::parse(&body::json(&mut call).await?)?)?;
    let wish = wish("EndpointConfig.", &call.name, fields.get("EndpointConfig").clone())?;
    call.engine().network_connect(&call.session, &call.name, &container(&fields)?, wish).await?;
    reply::empty(StatusCode::OK)
}

pub async fn disconnect(mut call: Call) -> Answer {
    let fields = Fields::of("", json::parse(&body::json(&mut call).await?)?)?;
    let force = fields.flag("Force")?;
    call.engine().network_disconnect(&call.session, &call.name, &container(&fields)?, force).await?;
    reply::empty(StatusCode::OK)
}

fn container(fields: &Fields) -> Result<String, ApiError> {
    let named = fields.text("Container")?.filter(|text| !text.is_empty());
    named.ok_or_else(|| ApiError::bad("Container is empty: which one?"))
}
