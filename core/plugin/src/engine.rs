//! How WebAssembly is compiled and run: one configuration, for the child that compiles and the server that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Of the crate that runs WebAssembly, as `Cargo.toml` names it: code of another is of no use.
pub(crate) const VERSION: &str = "48";

/// Length of a tick, in which deadlines are counted.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Deepest recursion of a plugin.
const STACK_BYTES: usize = 512 << 10;
/// Address space that a memory has without being moved, and what lies behind it.
const RESERVED_BYTES: u64 = 64 << 20;
const GUARD_BYTES: u64 = 64 << 10;
/// Kept by a place of the pool from one call to the next: larger inputs are copied without page faults.
const KEPT_BYTES: usize = 2 << 20;
/// Calls at a time; others wait.
pub(crate) const CALLS_MAX: u32 = 32;

/// What both sides must agree on: code that was compiled by another configuration is not loaded.
fn config() -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // A NaN has one form, or the same question could have two answers.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .memory_reservation(RESERVED_BYTES)
        .memory_guard_size(GUARD_BYTES);
    config
}

/// For the child: it loads nothing and runs nothing.
pub(crate) fn to_compile() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// For the server.
pub(crate) fn to_run(memory_bytes_max: usize) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(CALLS_MAX)
        .total_core_instances(CALLS_MAX * 4)
        .total_memories(CALLS_MAX)
        .total_tables(CALLS_MAX * 2)
        .max_core_instances_per_component(4)
        .max_tables_per_component(2)
        .max_memories_per_component(1)
        .max_memory_size(memory_bytes_max)
        .linear_memory_keep_resident(KEPT_BYTES);
    let mut config = config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// Counts ticks while somebody calls, and sleeps otherwise.
#[derive(Debug)]
pub(crate) struct Ticker {
    calls: Arc<AtomicUsize>,
    thread: Thread,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let calls = Arc::new(AtomicUsize::new(0));
        // It ends with the engine, which it does not keep.
        let (engine, counted) = (engine.weak(), calls.clone());
        let thread = std::thread::Builder::new().name("plugin-ticks".into()).spawn(move || {
            loop {
                if counted.load(Ordering::SeqCst) == 0 {
                    std::thread::park();
                } else {
                    std::thread::sleep(TICK);
                }
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        Ok(Self { calls, thread: thread.thread().clone() })
    }

    /// Ticks go on until the guard is dropped.
    pub(crate) fn run(&self) -> impl Drop + use<> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Running(self.calls.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
