//! Probes of containers that have a health check: a task for each, that follows the runs its driver tells of.
//!
//! What it learns is recorded with the container: the next server goes on from there with what runs.

use crate::containers::event;
use crate::driver::{Handle, Seen};
use crate::exec::{CODE_KILLED, ExecAsk, exec_action, process_of};
use crate::guest::{GuestStream, StreamEvent, printable};
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

/// For an agent to tell the end of a process that it was to kill.
const END_PATIENCE: Duration = Duration::from_secs(10);

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
        let is_broken_off = tokio::select! {
            biased;
            () = broken_off(handle, run) => true,
            () = tokio::time::sleep(known.health.pause(check, engine.now())) => {
                let Some(Asked { exec, code, probe }) = ask(engine, &container, check, handle).await else { continue };
                let mut record = Record::at(engine.now()).event(died(&container, &exec, code));
                let is_broken_off = probe.is_none();
                if probe.is_some_and(|probe| known.health.take(check, probe)) {
                    let action = format!("health_status: {}", known.health.status.word());
                    record = record.event(event(&container, &action, &[]));
                }
                keep(engine, &container, known, &record).await;
                is_broken_off
            }
        };
        // What breaks questions off and does not end the run is a pause, even one that is over by now.
        let goes_on = runs(&seen.borrow(), run);
        if is_paused(&seen.borrow()) || is_broken_off && goes_on {
            known.health.break_off();
            keep(engine, &container, known, &Record::at(engine.now())).await;
        }
    }
}

fn runs(seen: &Seen, run: u32) -> bool {
    seen.container
        .as_ref()
        .is_some_and(|container| matches!(container.status, Status::Running { run: now, .. } if now == run))
}

fn is_paused(seen: &Seen) -> bool {
    seen.container.as_ref().is_some_and(|container| {
        container.desired.paused && matches!(container.status, Status::Running { .. })
    })
}

/// Returns when that run may not be asked any more.
async fn broken_off(handle: &Handle, run: u32) {
    // Nobody who could tell is there: the server stops.
    let _ = handle.seen().wait_for(|seen| probed(seen).is_none_or(|(of, ..)| of != run)).await;
}

async fn keep(engine: &Engine, container: &Container, health: &RunHealth, record: &Record) {
    let kept = engine.store().set_health(engine.0.fence, container.vch, &container.id, health, record).await;
    told(engine, kept);
}

/// A question, and how its process ended.
struct Asked {
    exec: String,
    code: i32,
    /// `None`: it was broken off, which says nothing.
    probe: Option<Probe>,
}

fn died(container: &Container, exec: &str, code: i32) -> NewEvent {
    event(container, "exec_die", &[("execID", exec), ("exitCode", &code.to_string())])
}

/// `None`: nothing came of it.
async fn ask(engine: &Engine, container: &Container, check: &HealthCheck, handle: &Handle) -> Option<Asked> {
    let id = hex::encode(crate::admission::random::<32>().ok()?);
    tell(engine, container, &exec_action("exec_create", &check.command), &id).await;
    let started_at = engine.now();
    tell(engine, container, &exec_action("exec_start", &check.command), &id).await;
    let mut begun = Begun::default();
    let ran = tokio::select! {
        biased;
        () = broken_off(handle, container.status.run()) => None,
        ran = timeout(check.timeout(), run(engine, container, check, &mut begun)) => Some(ran),
    };
    let (code, text) = match ran {
        Some(Ok(Ok(code))) => (code, begun.text()),
        None | Some(Ok(Err(EngineError::NotRunning(_) | EngineError::Stopping))) => {
            let code = begun.end(handle).await;
            return Some(Asked { exec: id, code, probe: None });
        }
        Some(Ok(Err(error))) => (CODE_NO_ANSWER, error.to_string()),
        Some(Err(_)) => {
            begun.kill().await;
            let so_far = begun.text();
            let colon = if so_far.is_empty() { "" } else { ": " };
            let after = in_go(check.timeout());
            (CODE_NO_ANSWER, format!("Health check exceeded timeout ({after}){colon}{so_far}"))
        }
    };
    let probe = Probe { started_at, ended_at: engine.now(), code, output: text };
    Some(Asked { exec: id, code, probe: Some(probe) })
}

/// What is known of a probe before it ends.
#[derive(Default)]
struct Begun {
    output: Vec<u8>,
    stream: Option<GuestStream>,
}

impl Begun {
    fn text(&self) -> String {
        let kept = self.output.get(..OUTPUT_BYTES_MAX).unwrap_or(&self.output);
        let more = if self.output.len() > OUTPUT_BYTES_MAX { "..." } else { "" };
        String::from_utf8_lossy(kept).into_owned() + more
    }

    async fn kill(&self) {
        if let Some(stream) = &self.stream {
            // A machine that is gone has no process.
            let _ = stream.input().kill().await;
        }
    }

    /// Kills it and gives its code. In a container that is paused it may end with the pause only.
    async fn end(&mut self, handle: &Handle) -> i32 {
        self.kill().await;
        let Some(stream) = &mut self.stream else { return CODE_KILLED };
        let ended = async {
            loop {
                match stream.next().await {
                    Some(StreamEvent::Output { .. }) => {}
                    Some(StreamEvent::Ended(exited)) => return exited.code,
                    None => return CODE_KILLED,
                }
            }
        };
        let late = async {
            // Nobody who could tell is there: the server stops.
            let _ = handle.seen().wait_for(|seen| !is_paused(seen)).await;
            tokio::time::sleep(END_PATIENCE).await;
        };
        tokio::select! {
            code = ended => code,
            () = late => CODE_KILLED,
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
    let stream = match exec.await.map_err(|error| crate::input::broken(&container.id, &error))? {
        Ok((_, stream)) => stream,
        Err((code, message)) => return Err(EngineError::StartFailed { code, message: printable(&message) }),
    };
    let stream = begun.stream.insert(stream);
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
        let mut begun = Begun { output: vec![b'x'; OUTPUT_BYTES_MAX], stream: None };
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
