//! Probes of containers that have a health check: a task for each, that follows the runs its driver tells of.
//!
//! What it learns is recorded with the container: the next server goes on from there with what runs.

use crate::containers::event;
use crate::driver::{Handle, Seen};
use crate::exec::{ExecAsk, process_of};
use crate::guest::{GuestInput, StreamEvent, printable};
use crate::{Engine, EngineError};
use bulkhead_guest_protocol::message::Stdio;
use bulkhead_model::Container;
use bulkhead_model::event::{Event, NewEvent};
use bulkhead_model::health::{CODE_NO_ANSWER, Health, HealthCheck, OUTPUT_BYTES_MAX, Probe, RunHealth};
use bulkhead_model::lifecycle::Status;
use bulkhead_store::{Record, StoreError};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The run that probes may go to: its process runs and does not stand still.
fn probed(seen: &Seen) -> Option<(u32, DateTime<Utc>, Arc<Container>)> {
    let container = seen.container.as_ref().filter(|container| !container.desired.paused)?;
    match container.status {
        Status::Running { run, started_at, paused: false, .. } => Some((run, started_at, container.clone())),
        _ => None,
    }
}

/// Until the container is gone, or the server stops.
pub(crate) async fn watch(engine: Engine, check: HealthCheck, handle: Arc<Handle>) {
    let stop = engine.0.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&engine, &check, &handle) => {}
    }
}

async fn follow(engine: &Engine, check: &HealthCheck, handle: &Handle) {
    let mut seen = handle.seen();
    let mut last = seen.borrow().container.as_ref().and_then(|container| container.health.clone());
    loop {
        let Ok(found) =
            seen.wait_for(|seen| seen.gone || probed(seen).is_some()).await.map(|seen| probed(&seen))
        else {
            return;
        };
        let Some((run, started_at, container)) = found else { return };
        let known = last.take().filter(|known| known.run == run);
        let known = last.insert(known.unwrap_or_else(|| RunHealth { run, health: Health::new(started_at) }));
        let other = |seen: &Seen| probed(seen).is_none_or(|(of, ..)| of != run);
        let probe = async {
            tokio::time::sleep(known.health.pause(check, engine.now())).await;
            ask(engine, &container, check).await
        };
        let asked = tokio::select! {
            biased;
            changed = seen.wait_for(other) => match changed {
                Ok(_) => continue,
                Err(_) => return,
            },
            asked = probe => asked,
        };
        let Some(Asked { exec, probe }) = asked else { continue };
        let mut record = Record::at(engine.now()).event(died(&container, &exec, probe.code));
        if known.health.take(check, probe) {
            let action = format!("health_status: {}", known.health.status.word());
            record = record.event(event(&container, &action, &[]));
        }
        keep(engine, &container, known, &record).await;
    }
}

async fn keep(engine: &Engine, container: &Container, health: &RunHealth, record: &Record) {
    let kept = engine.store().set_health(engine.0.fence, container.vch, &container.id, health, record).await;
    told(engine, kept);
}

/// A question and its answer.
struct Asked {
    exec: String,
    probe: Probe,
}

fn died(container: &Container, exec: &str, code: i32) -> NewEvent {
    event(container, "exec_die", &[("execID", exec), ("exitCode", &code.to_string())])
}

/// `None`: the container ended while it was asked.
async fn ask(engine: &Engine, container: &Container, check: &HealthCheck) -> Option<Asked> {
    let id = hex::encode(crate::admission::random::<32>().ok()?);
    let words = check.command.join(" ");
    tell(engine, container, &format!("exec_create: {words}"), &id).await;
    let started_at = engine.now();
    tell(engine, container, &format!("exec_start: {words}"), &id).await;
    let mut begun = Begun::default();
    let (code, text) = match timeout(check.timeout(), run(engine, container, check, &mut begun)).await {
        Ok(Ok(code)) => (code, begun.text()),
        Ok(Err(EngineError::NotRunning(_) | EngineError::Stopping)) => return None,
        Ok(Err(error)) => (CODE_NO_ANSWER, error.to_string()),
        Err(_) => {
            begun.kill().await;
            let so_far = begun.text();
            let colon = if so_far.is_empty() { "" } else { ": " };
            let after = in_go(check.timeout());
            (CODE_NO_ANSWER, format!("Health check exceeded timeout ({after}){colon}{so_far}"))
        }
    };
    let probe = Probe { started_at, ended_at: engine.now(), code, output: text };
    Some(Asked { exec: id, probe })
}

/// What is known of a probe before it ends.
#[derive(Default)]
struct Begun {
    output: Vec<u8>,
    process: Option<GuestInput>,
}

impl Begun {
    fn text(&self) -> String {
        let kept = self.output.get(..OUTPUT_BYTES_MAX).unwrap_or(&self.output);
        let more = if self.output.len() > OUTPUT_BYTES_MAX { "..." } else { "" };
        String::from_utf8_lossy(kept).into_owned() + more
    }

    async fn kill(&self) {
        if let Some(process) = &self.process {
            // A machine that is gone has no process.
            let _ = process.kill().await;
        }
    }
}

async fn run(
    engine: &Engine,
    container: &Container,
    check: &HealthCheck,
    begun: &mut Begun,
) -> Result<i32, EngineError> {
    let agent = engine.agent(container).await?;
    let ask = ExecAsk { cmd: check.command.clone(), ..ExecAsk::default() };
    let exec = agent.exec(process_of(container, &ask), Stdio::default(), check.timeout());
    let mut stream = match exec.await.map_err(|error| crate::input::broken(&container.id, &error))? {
        Ok((_, stream)) => stream,
        Err((code, message)) => return Err(EngineError::StartFailed { code, message: printable(&message) }),
    };
    begun.process = Some(stream.input());
    loop {
        match stream.next().await {
            Some(StreamEvent::Output { data, .. }) => {
                // One more than is kept says that there was more.
                let room = (OUTPUT_BYTES_MAX + 1).saturating_sub(begun.output.len());
                begun.output.extend(data.iter().take(room));
            }
            Some(StreamEvent::Ended(exited)) => return Ok(exited.code),
            None => return Err(EngineError::NotRunning(container.id.clone())),
        }
    }
}

async fn tell(engine: &Engine, container: &Container, action: &str, exec: &str) {
    let record = Record::at(engine.now()).event(event(container, action, &[("execID", exec)]));
    told(engine, engine.store().tell(container.vch, &record).await);
}

fn told(engine: &Engine, recorded: Result<Vec<Event>, StoreError>) {
    match recorded {
        Ok(_) => engine.0.feed.wake(),
        // It was removed meanwhile.
        Err(StoreError::NotFound { .. }) => {}
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what a health check told was not recorded"
            );
        }
    }
}

/// `1m30s`, `5s`, `1.5s`, `200ms`: as clients know durations.
fn in_go(time: Duration) -> String {
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    match (minutes, time.subsec_millis()) {
        (0, millis) if seconds == 0 => format!("{millis}ms"),
        (0, 0) => format!("{seconds}s"),
        (0, millis) => format!("{seconds}.{}s", format!("{millis:03}").trim_end_matches('0')),
        (minutes, _) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_cut_and_marked() {
        let mut begun = Begun { output: vec![b'x'; OUTPUT_BYTES_MAX], process: None };
        assert_eq!(begun.text().len(), OUTPUT_BYTES_MAX);
        begun.output.push(b'x');
        assert!(begun.text().ends_with("xx...") && begun.text().len() == OUTPUT_BYTES_MAX + 3);
    }

    #[test]
    fn durations_are_go_s() {
        let text = |millis| in_go(Duration::from_millis(millis));
        assert_eq!([200, 1500, 5000, 90_000].map(text), ["200ms", "1.5s", "5s", "1m30s"].map(str::to_owned));
    }
}
