//! Machines: starting, observing, ending.

use super::*;

pub async fn a_start_may_be_repeated(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let spec = prepare(fixture, &container(1)).await?;
    back_end.machines.start(&spec).await?;
    let first = back_end.machines.observe(&spec.id).await?;
    back_end.machines.start(&spec).await?;
    let second = back_end.machines.observe(&spec.id).await?;
    ensure!(first == second, "a second start made another machine: {first:?}, {second:?}");
    let facts = second.ok_or("a started machine is not there")?;
    ensure!(matches!(facts.condition, Condition::Running { .. }), "it does not run: {facts:?}");
    ensure!(facts.token == spec.token && facts.run == spec.run, "it carries other facts: {facts:?}");
    ensure!(facts.vch == spec.vch && facts.server == spec.server, "it carries other owners: {facts:?}");
    let list = back_end.machines.list().await?;
    ensure!(list == [facts], "the list is another: {list:?}");
    for cpu_milli in [300, 300, 1000] {
        back_end.machines.set_cpu_share(&spec.id, cpu_milli).await?;
    }
    let other_run = back_end.machines.start(&MachineSpec { run: 2, ..spec.clone() }).await;
    ensure!(
        matches!(other_run, Err(MachineError::Start { .. })),
        "another run was taken for it: {other_run:?}"
    );
    let deleted = back_end.machines.delete(&spec.id).await;
    ensure!(deleted.is_err(), "a running machine was deleted");
    Ok(back_end.machines.kill(&spec.id).await?)
}

pub async fn what_is_not_there_is_told(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let (machines, journals) = (&back_end.machines, &back_end.journals);
    let id = container(1);
    ensure!(machines.observe(&id).await?.is_none(), "there is a machine");
    machines.kill(&id).await?;
    machines.delete(&id).await?;
    let share = machines.set_cpu_share(&id, 500).await;
    ensure!(matches!(share, Err(MachineError::NoSuchMachine(_))), "a share of nothing: {share:?}");
    let channel = machines.channel(&id).await.map(drop);
    ensure!(matches!(channel, Err(MachineError::NoSuchMachine(_))), "a channel to nothing: {channel:?}");
    ensure!(journals.extent(&id).await? == Extent::default(), "there is a journal");
    ensure!(journals.read(&id, 5, 100).await?.data.is_empty(), "there is a journal to read");
    journals.release(&id, 5).await?;
    journals.delete(&id).await?;

    let spec = prepare(fixture, &id).await?;
    let missing = Digest::of(b"no such layer");
    let layers = [spec.layers.clone(), vec![missing.clone()]].concat();
    let started = machines.start(&MachineSpec { layers, ..spec.clone() }).await;
    ensure!(
        matches!(&started, Err(MachineError::NoSuchLayer(layer)) if *layer == missing),
        "a missing layer was not told: {started:?}"
    );
    let without_disk = MachineSpec { id: container(2), ..spec };
    let started = machines.start(&without_disk).await;
    ensure!(matches!(started, Err(MachineError::Start { .. })), "a missing disk was not told: {started:?}");
    ensure!(machines.list().await?.is_empty(), "a failed start left a machine");
    Ok(())
}

pub async fn a_process_runs_and_its_journal_is_whole(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let spec = prepare(fixture, &container(1)).await?;
    let agent = start_process(fixture, &spec, &[Does::Count(3), Does::Exit(7)]).await?;
    drop(agent);
    let told = records(&back_end, &spec.id, 1).await?;
    ensure!(matches!(told.first().map(|record| &record.body), Some(Body::Started(_))), "no start: {told:?}");
    ensure!(output(&told, 1) == lines(3), "other output: {:?}", output(&told, 1));
    ensure!(exit(&told).is_some_and(|exited| exited.code == 7), "another exit: {told:?}");
    ensure!(told.iter().map(|record| record.seq).eq(0..u64::try_from(told.len())?), "lost records: {told:?}");
    // It powers itself off; what it wrote is kept, whatever becomes of the machine.
    ended(&back_end, &spec.id).await?;
    ensure!(records(&back_end, &spec.id, 1).await? == told, "the journal changed when the machine ended");
    let channel = back_end.machines.channel(&spec.id).await.map(drop);
    ensure!(
        matches!(channel, Err(MachineError::Channel { .. })),
        "a channel to an ended machine: {channel:?}"
    );
    back_end.machines.delete(&spec.id).await?;
    ensure!(records(&back_end, &spec.id, 1).await? == told, "the journal went with the machine");
    back_end.journals.delete(&spec.id).await?;
    ensure!(back_end.journals.extent(&spec.id).await? == Extent::default(), "the journal was not deleted");
    Ok(())
}

pub async fn a_command_that_is_not_there_is_told(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let spec = prepare(fixture, &container(1)).await?;
    back_end.machines.start(&spec).await?;
    let (mut agent, state) = greet(&back_end, &spec).await?;
    ensure!(state == AgentState::Ready, "a fresh agent is {state:?}");
    let process = Process { args: vec!["no-such-command".into()], ..fixture.process(&[]) };
    match run(&back_end, &spec, &mut agent, process).await? {
        ReplyBody::StartFailed { code: 127, message } => {
            ensure!(message.contains("no-such-command"), "the message does not name it: {message}");
        }
        other => return Err(format!("not told: {other:?}").into()),
    }
    let told = records(&back_end, &spec.id, 1).await?;
    ensure!(
        matches!(told.as_slice(), [Record { body: Body::StartFailed(_), .. }]),
        "the journal has {told:?}"
    );
    ended(&back_end, &spec.id).await?;
    Ok(())
}

pub async fn a_kill_is_final_and_may_be_repeated(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let spec = prepare(fixture, &container(1)).await?;
    back_end.machines.start(&spec).await?;
    back_end.machines.kill(&spec.id).await?;
    let facts = back_end.machines.observe(&spec.id).await?.ok_or("a killed machine is not there")?;
    let killed = Condition::Ended { reason: "killed".into() };
    ensure!(facts.condition == killed, "after a kill it is {facts:?}");
    back_end.machines.kill(&spec.id).await?;
    let again = back_end.machines.start(&spec).await;
    ensure!(matches!(again, Err(MachineError::Start { .. })), "an ended machine started again: {again:?}");
    back_end.machines.delete(&spec.id).await?;
    back_end.machines.delete(&spec.id).await?;
    ensure!(back_end.machines.observe(&spec.id).await?.is_none(), "a deleted machine is there");
    ensure!(back_end.machines.list().await?.is_empty(), "a deleted machine is listed");
    Ok(())
}

pub async fn a_paused_machine_stands_still_until_it_is_resumed(fixture: &mut dyn Fixture) -> Outcome {
    let id = container(1);
    let nothing = fixture.back_end().machines.pause(&id).await;
    ensure!(matches!(nothing, Err(MachineError::NoSuchMachine(_))), "there is nothing to pause: {nothing:?}");
    let spec = prepare(fixture, &id).await?;
    let mut agent = start_process(fixture, &spec, &[Does::Count(1), Does::Sleep]).await?;
    first_output(&fixture.back_end(), &spec.id).await?;
    for _ in 1..=2 {
        fixture.back_end().machines.pause(&id).await?;
        ensure!(is_paused(fixture, &id).await? == Some(true), "a pause did not pause it");
    }
    let clock = || RequestBody::SetClock { unix_ns: 1_700_000_000_000_000_000 };
    let silent = agent.call(clock(), Duration::from_millis(700)).await;
    ensure!(matches!(silent, Err(AgentError::Silent(_))), "somebody in it answers: {silent:?}");
    drop(agent);

    // The next server finds it as it is.
    fixture.reopen().await?;
    ensure!(is_paused(fixture, &id).await? == Some(true), "the next server does not know that it is paused");
    let machines = fixture.back_end().machines;
    for _ in 1..=2 {
        machines.resume(&id).await?;
        ensure!(is_paused(fixture, &id).await? == Some(false), "a resume did not resume it");
    }
    let (mut agent, _) = greet(&fixture.back_end(), &spec).await?;
    let answer = agent.call(clock(), DEADLINE).await?;
    ensure!(answer == ReplyBody::Done, "it does not go on: {answer:?}");
    drop(agent);

    // A paused machine can be ended as any other.
    machines.pause(&id).await?;
    machines.kill(&id).await?;
    ensure!(is_paused(fixture, &id).await?.is_none(), "it did not end");
    let ended = machines.resume(&id).await;
    ensure!(matches!(ended, Err(MachineError::NoSuchMachine(_))), "an ended machine was resumed: {ended:?}");
    Ok(())
}

/// `None`: it does not run.
async fn is_paused(fixture: &dyn Fixture, id: &ContainerId) -> Result<Option<bool>, Failure> {
    Ok(match fixture.back_end().machines.observe(id).await? {
        Some(MachineFacts { condition: Condition::Running { paused, .. }, .. }) => Some(paused),
        Some(_) | None => None,
    })
}

pub async fn memory_comes_to_what_runs(fixture: &mut dyn Fixture) -> Outcome {
    let id = container(1);
    let nothing = fixture.back_end().machines.grow_memory(&id, 1 << 30).await;
    ensure!(matches!(nothing, Err(MachineError::NoSuchMachine(_))), "memory for nothing: {nothing:?}");
    let spec = prepare(fixture, &id).await?;
    let agent = start_process(fixture, &spec, &[Does::Count(1), Does::Sleep]).await?;
    drop(agent);
    let before = memory(fixture, &id).await?;
    ensure!(before.memory_bytes >= spec.memory_bytes && before.plugged_bytes == 0, "it has {before:?}");
    let wanted = spec.memory_bytes + (300 << 20);
    for _ in 1..=2 {
        fixture.back_end().machines.grow_memory(&id, wanted).await?;
    }
    fixture.back_end().machines.grow_memory(&id, spec.memory_bytes).await?;
    let after = memory(fixture, &id).await?;
    ensure!((wanted..wanted + (128 << 20)).contains(&after.memory_bytes), "it has {after:?}");
    ensure!(after.plugged_bytes >= after.memory_bytes - before.memory_bytes, "it has {after:?}");
    fixture.reopen().await?;
    ensure!(memory(fixture, &id).await? == after, "the next server finds another machine");
    let back_end = fixture.back_end();
    let (mut agent, _) = greet(&back_end, &spec).await?;
    // The guest takes it once its kernel has seen it.
    let limits = Limits { plugged_bytes: after.plugged_bytes, ..Limits::default() };
    let by = tokio::time::Instant::now() + DEADLINE;
    while let refused @ ReplyBody::Refused { .. } = agent.call(RequestBody::Limits(limits), DEADLINE).await? {
        ensure!(tokio::time::Instant::now() < by, "the guest does not take its memory: {refused:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(back_end.machines.kill(&id).await?)
}

async fn memory(fixture: &dyn Fixture, id: &ContainerId) -> Result<MemoryFacts, Failure> {
    let found = fixture.back_end().machines.observe(id).await?;
    Ok(found.ok_or("the machine is not there")?.memory)
}

pub async fn an_end_wakes_whoever_listens(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let spec = prepare(fixture, &container(1)).await?;
    back_end.machines.start(&spec).await?;
    let mut changes = back_end.machines.changes();
    back_end.machines.kill(&spec.id).await?;
    let woken = timeout(DEADLINE, changes.recv()).await;
    ensure!(matches!(&woken, Ok(Ok(id)) if *id == spec.id), "nobody was woken: {woken:?}");
    Ok(())
}

pub async fn a_deleted_machine_starts_anew_and_its_journal_goes_on(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let mut spec = prepare(fixture, &container(1)).await?;
    for run in 1..=2 {
        spec.run = run;
        let agent = start_process(fixture, &spec, &[Does::Count(run), Does::Exit(0)]).await?;
        drop(agent);
        let told = records(&back_end, &spec.id, run).await?;
        ensure!(output(&told, 1) == lines(1), "run 1 wrote {:?}", output(&told, 1));
        ensure!(run == 1 || output(&told, 2) == lines(2), "run 2 wrote {:?}", output(&told, 2));
        ended(&back_end, &spec.id).await?;
        back_end.machines.delete(&spec.id).await?;
    }
    Ok(())
}

pub async fn a_new_channel_ends_the_last(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let spec = prepare(fixture, &container(1)).await?;
    let mut first = start_process(fixture, &spec, &[Does::Count(1), Does::Sleep]).await?;
    first_output(&back_end, &spec.id).await?;
    let (mut second, state) = greet(&back_end, &spec).await?;
    ensure!(
        matches!(state, AgentState::Running { run: 1, .. }),
        "the process runs, the agent says {state:?}"
    );
    let clock = RequestBody::SetClock { unix_ns: 1_700_000_000_000_000_000 };
    let dead = first.call(clock, DEADLINE).await;
    ensure!(matches!(dead, Err(AgentError::HungUp | AgentError::Io(_))), "the first channel lives: {dead:?}");
    drop(first);
    let signalled = second.call(RequestBody::Signal { number: 15 }, DEADLINE).await?;
    ensure!(signalled == ReplyBody::Done, "the signal was not taken: {signalled:?}");
    let told = records(&back_end, &spec.id, 1).await?;
    ensure!(exit(&told).is_some_and(|exited| exited.code == 143), "another exit: {told:?}");
    ended(&back_end, &spec.id).await?;
    Ok(())
}

pub async fn a_machine_outlives_its_server(fixture: &mut dyn Fixture) -> Outcome {
    let spec = prepare(fixture, &container(1)).await?;
    // All that it writes is there when anything is.
    let agent = start_process(fixture, &spec, &[Does::Count(1), Does::Sleep]).await?;
    first_output(&fixture.back_end(), &spec.id).await?;
    let before = fixture.back_end().machines.observe(&spec.id).await?;
    drop(agent);
    let back_end = fixture.reopen().await?;
    let after = back_end.machines.observe(&spec.id).await?;
    ensure!(before == after, "the next server finds {after:?}, not {before:?}");
    ensure!(back_end.machines.list().await?.len() == 1, "the next server lists something else");
    let (mut agent, state) = greet(&back_end, &spec).await?;
    ensure!(
        matches!(state, AgentState::Running { run: 1, .. }),
        "the process runs, the agent says {state:?}"
    );
    agent.call(RequestBody::Signal { number: 15 }, DEADLINE).await?;
    let told = records(&back_end, &spec.id, 1).await?;
    ensure!(output(&told, 1) == lines(1), "the next server reads {:?}", output(&told, 1));
    ended(&back_end, &spec.id).await?;
    back_end.machines.delete(&spec.id).await?;
    Ok(())
}

pub async fn a_volume_is_one_machines_unless_all_read(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let at = VolumePlace { id: VolumeId(uuid_of(0x33)), folder: None };
    let mut first = prepare(fixture, &container(1)).await?;
    let mut second = prepare(fixture, &container(2)).await?;
    first.volumes = vec![VolumeDisk { at: at.clone(), read_only: false }];
    let missing = back_end.machines.start(&first).await;
    ensure!(matches!(missing, Err(MachineError::NoSuchVolume(_))), "started without its volume: {missing:?}");
    back_end.disks.create_volume(vch(), &at, DISK_BYTES).await?;
    back_end.machines.start(&first).await?;
    greet(&back_end, &first).await?;
    for read_only in [false, true] {
        second.volumes = vec![VolumeDisk { at: at.clone(), read_only }];
        // Refused at once, or by the hypervisor itself.
        if back_end.machines.start(&second).await.is_ok() {
            ended(&back_end, &second.id).await?;
        }
        back_end.machines.delete(&second.id).await?;
    }
    back_end.machines.kill(&first.id).await?;
    back_end.machines.delete(&first.id).await?;
    for spec in [&mut first, &mut second] {
        spec.volumes = vec![VolumeDisk { at: at.clone(), read_only: true }];
        back_end.machines.start(spec).await?;
        greet(&back_end, spec).await?;
    }
    for spec in [&first, &second] {
        back_end.machines.kill(&spec.id).await?;
    }
    Ok(())
}
