//! The schema: part of this crate, so that whoever may write policies cannot change what they are checked against.

use crate::error::PolicyError;
use bulkhead_model::Class;
use cedar_policy::Schema;

/// What policies can speak about, as shipped, with the classes `dev`, `test` and `prod`.
pub const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");

const CLASSES: &str = r#"entity Class enum ["dev", "test", "prod"];"#;

/// The schema text with the operator's classes.
pub fn schema_text(classes: &[Class]) -> String {
    let names: Vec<String> = classes.iter().map(|class| format!("\"{class}\"")).collect();
    SCHEMA.replace(CLASSES, &format!("entity Class enum [{}];", names.join(", ")))
}

pub(crate) fn parse(text: &str) -> Result<Schema, PolicyError> {
    let (schema, _) =
        Schema::from_cedarschema_str(text).map_err(|error| PolicyError::Schema { why: error.to_string() })?;
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::Action;
    use std::collections::BTreeSet;

    #[test]
    fn actions_of_schema_and_model_agree_both_ways() {
        let schema = parse(&schema_text(&["dev".parse().unwrap()])).unwrap();
        let groups: BTreeSet<String> =
            schema.action_groups().map(|uid| uid.id().unescaped().to_owned()).collect();
        let all = schema.actions().map(|uid| uid.id().unescaped().to_owned());
        let in_schema: BTreeSet<String> = all.filter(|name| !groups.contains(name)).collect();
        let in_model: BTreeSet<String> = Action::ALL.iter().map(|action| action.name().to_owned()).collect();
        assert_eq!(in_schema, in_model);
        let expected = ["admin", "any", "build", "operate", "own", "read"].map(str::to_owned);
        assert_eq!(groups, expected.into());
    }

    #[test]
    fn the_classes_have_one_place_in_the_schema() {
        assert_eq!(SCHEMA.matches(CLASSES).count(), 1);
        let text = schema_text(&["lab".parse().unwrap(), "prod".parse().unwrap()]);
        assert!(text.contains(r#"entity Class enum ["lab", "prod"];"#));
    }
}
