//! What it costs to ask a plugin about candidates, beside the same plugin as native code: a line of JSON for each count.
//!
//! `cargo bench --workspace --bench placement -- BULKHEAD SPREAD.wasm`: the program that compiles, and the component.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "it ends with what went wrong")]

use bulkhead_model::vch::VchName;
use bulkhead_model::{
    Caller, ContainerAsk, ContainerId, DecisionId, Digest, ImageConfig, RestartPolicy, Vch, VchId,
    VchSettings,
};
use bulkhead_plugin::{Candidates, Circumstances, Compiler, Container, Host, Limits, Texts, ToPlace};
use bulkhead_sdk::admission::{Container as Told, Label, test_call};
use bulkhead_sdk::placement::{self, Placement as _};
use serde_json::json;
use spread::{Settings, Spread};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const COUNTS: [u32; 4] = [10, 100, 1_000, 10_000];
const RUNS: usize = 300;

/// Columns as an engine has them, read by both.
#[derive(Debug)]
struct Hosts(u32);

impl Hosts {
    fn column(&self, name: &str) -> Option<Vec<u32>> {
        match name {
            "memory-mib" => Some(vec![64 << 10; self.0 as usize]),
            "memory-free-mib" => Some((0..self.0).map(|n| n * 7919 % (64 << 10)).collect()),
            "containers-with:app=web" => Some((0..self.0).map(|n| n % 5).collect()),
            _ => None,
        }
    }
}

impl Candidates for Hosts {
    fn count(&self) -> u32 {
        self.0
    }

    fn numbers(&self, column: &str) -> Option<Vec<u32>> {
        self.column(column)
    }

    fn texts(&self, _: &str) -> Option<Texts> {
        None
    }
}

impl placement::Candidates for Hosts {
    fn count(&self) -> usize {
        self.0 as usize
    }

    fn numbers(&self, column: &str) -> Option<Vec<u32>> {
        self.column(column)
    }

    fn texts(&self, _: &str) -> Option<placement::Texts> {
        None
    }
}

fn us(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|word| word != "--bench").map(PathBuf::from).collect();
    let [program, component] = arguments.as_slice() else {
        eprintln!("two words are wanted: the program `bulkhead`, and the component of `spread`");
        std::process::exit(2);
    };
    let folder = tempfile::tempdir().unwrap();
    let compiler = Compiler::new(program.clone(), vec!["plugin-compile".into()]);
    let host = Host::new(folder.path(), compiler, Limits::default()).unwrap();
    let component = std::fs::read(component).unwrap();
    let plugin = host.load(&Digest::of(&component), async move || Ok(component)).await.unwrap();
    let limits = host.placement_limits();

    let labels = [("app".to_owned(), "web".to_owned())].into();
    let image = ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() };
    let ask = ContainerAsk { labels, ..ContainerAsk::default() };
    let id = ContainerId::from_random([1; 32]);
    let spec = bulkhead_model::container::resolve(&id, &ask, &image, &VchSettings::default()).unwrap();
    let vch = Vch {
        id: VchId(uuid::Uuid::nil()),
        name: "one".parse::<VchName>().unwrap(),
        tenant: "acme".into(),
        class: "test".parse().unwrap(),
        parent: None,
        settings: VchSettings::default(),
        created_at: chrono::DateTime::UNIX_EPOCH,
        deleting: false,
    };
    let settings = json!({ "apart": ["app"] });
    let native_settings = Settings { apart: vec!["app".into()], ..Settings::default() };
    let label = Label { key: "app".into(), value: "web".into() };
    let native_container = Told { labels: vec![label], ..Told::default() };
    let now = chrono::DateTime::UNIX_EPOCH;
    for count in std::iter::once(0).chain(COUNTS) {
        let (decision, caller) = (DecisionId::new(1, 2), Caller::unix(1000));
        let circumstances = Circumstances { decision: &decision, vch: &vch, caller: &caller, now, seed: 1 };
        let restart = RestartPolicy::default();
        let container = Container { name: "web", spec: &spec, asked: "nginx", image: None, restart };
        let asked = ToPlace::new(circumstances, container, Arc::new(Hosts(count)));
        let (mut call, mut whole, mut native) = (Vec::new(), Vec::new(), Vec::new());
        let (mut wasm_says, mut native_says) = (Vec::new(), Vec::new());
        for run in 0..RUNS + 20 {
            let begun = Instant::now();
            let called = plugin.rate(&settings, &asked, &limits).await;
            let took = begun.elapsed();
            wasm_says = called.result.unwrap().scores;
            let begun = Instant::now();
            let said = Spread::rate(&native_settings, &test_call(), &native_container, &Hosts(count));
            let native_took = begun.elapsed();
            native_says = black_box(said).scores().to_vec();
            // The first ones warm up.
            if run >= 20 {
                call.push(us(called.took));
                whole.push(us(took));
                native.push(us(native_took));
            }
        }
        assert_eq!(wasm_says, native_says, "both say the same");
        println!(
            "{}",
            json!({ "candidates": count, "call_us": call, "whole_us": whole, "native_us": native })
        );
    }
}
