//! `GET /images/{name}/history`: newest step first.

use super::shape::{created, tags};
use crate::call::{Answer, Call};
use crate::reply;
use bulkhead_model::Image;
use bulkhead_model::image::History;
use serde_json::{Value, json};

pub async fn get(call: Call) -> Answer {
    let image = call.engine().image(&call.session, &call.name).await?;
    reply::ok(&history(&image))
}

/// Steps that made a layer take the layers' sizes in turn; layers without a step (the history is optional, and an
/// image may lie) follow without words.
fn history(image: &Image) -> Vec<Value> {
    let mut sizes = image.layers.iter().map(|layer| layer.size_bytes);
    let mut steps: Vec<(History, u64)> = Vec::new();
    for step in &image.config.history {
        let size_bytes = if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        steps.push((step.clone(), size_bytes));
    }
    steps.extend(sizes.map(|size_bytes| (History::default(), size_bytes)));
    let newest_first = steps.into_iter().rev().enumerate();
    newest_first
        .map(|(at, (step, size_bytes))| {
            // Only the newest step is an image; the rest have no id of their own.
            let id = if at == 0 { image.id.as_str() } else { "<missing>" };
            let tags = if at == 0 { json!(tags(image)) } else { Value::Null };
            json!({
                "Id": id,
                "Created": step.created.unwrap_or_else(|| created(image)).timestamp(),
                "CreatedBy": step.created_by,
                "Tags": tags,
                "Size": size_bytes,
                "Comment": step.comment,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::shape::tests::image;
    use super::*;

    #[test]
    fn steps_carry_the_sizes_of_their_layers() {
        let steps = history(&image(Some("alpine")));
        let column = |name: &str| steps.iter().map(|step| step[name].clone()).collect::<Vec<_>>();
        assert_eq!(column("CreatedBy"), ["COPY app", "CMD sh", "ADD base"]);
        assert_eq!(column("Size"), [20, 0, 100]);
        assert_eq!(column("Id")[1], "<missing>");
        assert_eq!(steps[0]["Tags"], json!(["alpine:latest"]));
    }

    #[test]
    fn layers_without_a_history_are_shown() {
        let mut image = image(Some("alpine"));
        image.config.history.clear();
        assert_eq!(history(&image).len(), 2);
    }
}
