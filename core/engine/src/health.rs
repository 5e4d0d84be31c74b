//! Probes of containers that have a health check: a task for each, that follows the runs its driver tells of.
//!
//! What it learns is kept with the driver's handle, in memory: the next server begins anew with what runs.

use crate::containers::event;
use crate::driver::{Handle, Seen};
use crate::exec::{ExecAsk, process_of};
use crate::guest::{GuestInput, StreamEvent, printable};
use crate::{Engine, EngineError};
use bulkhead_guest_protocol::message::Stdio;
use bulkhead_model::Container;
use bulkhead_model::health::{CODE_NO_ANSWER, Health, HealthCheck, HealthStatus, OUTPUT_BYTES_MAX, Probe};
use bulkhead_model::lifecycle::Status;
use bulkhead_store::Record;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How a run is doing, and which.
pub(crate) type HealthOf = Option<(u32, Health)>;

impl Engine {
    /// How a container is doing. `None`: nobody asks, or it never ran.
    pub fn health(&self, container: &Container) -> Option<Health> {
        container.spec.health.as_ref()?;
        let known = self.0.drivers.get(&container.id).and_then(|handle| handle.health());
        match &container.status {
            Status::Running { run, started_at, .. } => {
                let current = known.filter(|(of, _)| of == run).map(|(_, health)| health);
                Some(current.unwrap_or_else(|| Health::new(*started_at)))
            }
            // What does not run is not well.
            Status::Starting { .. } | Status::Exited { .. } => known.map(|(_, mut health)| {
                health.status = HealthStatus::Unhealthy;
                health
            }),
            Status::Created => None,
        }
    }
}

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
    loop {
        let Ok(found) =
            seen.wait_for(|seen| seen.gone || probed(seen).is_some()).await.map(|seen| probed(&seen))
        else {
            return;
        };
        let Some((run, started_at, container)) = found else { return };
        let known = handle.health().filter(|(of, _)| *of == run);
        let mut health = known.map_or_else(|| Health::new(started_at), |(_, health)| health);
        handle.set_health(Some((run, health.clone())));
        let other = |seen: &Seen| probed(seen).is_none_or(|(of, ..)| of != run);
        let probe = async {
            tokio::time::sleep(health.pause(check, engine.now())).await;
            ask(engine, &container, check).await
        };
        let probe = tokio::select! {
            biased;
            changed = seen.wait_for(other) => match changed {
                Ok(_) => continue,
                Err(_) => return,
            },
            probe = probe => probe,
        };
        let Some(probe) = probe else { continue };
        let changed = health.take(check, probe);
        let status = health.status.word();
        handle.set_health(Some((run, health)));
        if changed {
            tell(engine, &container, &format!("health_status: {status}"), &[]).await;
        }
    }
}

/// `None`: the container ended while it was asked.
async fn ask(engine: &Engine, container: &Container, check: &HealthCheck) -> Option<Probe> {
    let id = hex::encode(crate::admission::random::<32>().ok()?);
    let words = check.command.join(" ");
    tell(engine, container, &format!("exec_create: {words}"), &[("execID", &id)]).await;
    let started_at = engine.now();
    tell(engine, container, &format!("exec_start: {words}"), &[("execID", &id)]).await;
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
    let shown = code.to_string();
    tell(engine, container, "exec_die", &[("execID", &id), ("exitCode", &shown)]).await;
    Some(Probe { started_at, ended_at: engine.now(), code, output: text })
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

async fn tell(engine: &Engine, container: &Container, action: &str, special: &[(&str, &str)]) {
    let record = Record::at(engine.now()).event(event(container, action, special));
    match engine.store().tell(container.vch, &record).await {
        Ok(_) => engine.0.feed.wake(),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an event of a health check was not recorded"
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
