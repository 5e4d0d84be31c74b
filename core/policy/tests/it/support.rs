//! Queries in a few words: the scenes of cases, for tests that bend them further.

use bulkhead_model::caller::Via;
use bulkhead_model::{Action, Caller, Digest, Image, Vch};
use bulkhead_policy::{Query, Scene};
use std::ops::{Deref, DerefMut};

/// A scene that cannot fail to be made.
#[derive(Debug, Clone)]
pub struct World(Scene);

impl Deref for World {
    type Target = Scene;
    fn deref(&self) -> &Scene {
        &self.0
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Scene {
        &mut self.0
    }
}

pub fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

pub fn vch(name: &str, tenant: &str, class: &str) -> Vch {
    let id = uuid::Uuid::parse_str(digest(name).hex().get(..32).unwrap()).unwrap();
    Vch {
        id: bulkhead_model::VchId(id),
        name: name.parse().unwrap(),
        tenant: tenant.into(),
        ..Scene::new(class).unwrap().vch
    }
}

/// An image that was pulled from these repositories; from none if it was loaded.
pub fn image(origins: &[&str]) -> Image {
    let origin = |repository: &&str| {
        let digest = digest(repository);
        let (registry, repository) = repository.split_once('/').unwrap();
        bulkhead_model::Origin { registry: registry.into(), repository: repository.into(), digest }
    };
    let image = Scene::new("dev").unwrap().image.unwrap();
    Image { origins: origins.iter().map(origin).collect(), ..image }
}

impl World {
    pub fn new(class: &str) -> Self {
        Self(Scene::new(class).unwrap())
    }

    pub fn by(mut self, name: &str, via: Via) -> Self {
        self.caller = Caller { name: name.into(), via };
        self
    }

    pub fn query(&self, action: Action) -> Query<'_> {
        self.0.query(action)
    }
}
