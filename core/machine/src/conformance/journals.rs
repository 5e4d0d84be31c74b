//! Journals: kept, released, followed.

use super::*;

pub async fn a_journal_can_be_released(fixture: &mut dyn Fixture) -> Outcome {
    /// Holes are made of whole blocks: this much may be kept although it was released.
    const BLOCK_BYTES: u64 = 4096;
    let journals = fixture.back_end().journals;
    let spec = prepare(fixture, &container(1)).await?;
    let agent = start_process(fixture, &spec, &[Does::Count(3000), Does::Exit(0)]).await?;
    drop(agent);
    let told = records(&fixture.back_end(), &spec.id, 1).await?;
    ensure!(output(&told, 1) == lines(3000), "lines are missing");
    let whole = journals.extent(&spec.id).await?;
    ensure!(whole.start == 0 && whole.end > 4 * BLOCK_BYTES, "it reaches over {whole:?}");
    let tail = journals.read(&spec.id, whole.end - 100, 1000).await?;
    ensure!(tail.data.len() == 100, "the tail has {} bytes", tail.data.len());

    let offset = 2 * BLOCK_BYTES + 10;
    journals.release(&spec.id, offset).await?;
    let kept = journals.extent(&spec.id).await?;
    ensure!(kept.end == whole.end, "its end moved: {kept:?}");
    ensure!(kept.start <= offset && kept.start + BLOCK_BYTES > offset, "released to {offset}, kept {kept:?}");
    let early = journals.read(&spec.id, 0, 10).await?;
    ensure!(early.offset == kept.start && early.data.len() == 10, "an early read begins at {}", early.offset);
    journals.release(&spec.id, 5).await?;
    ensure!(journals.extent(&spec.id).await? == kept, "a release went backwards");
    ensure!(journals.read(&spec.id, whole.end - 100, 1000).await? == tail, "what is kept changed");
    // What was released stays so for the next server.
    let journals = fixture.reopen().await?.journals;
    ensure!(journals.extent(&spec.id).await? == kept, "the next server finds another beginning");
    Ok(())
}

pub async fn growth_wakes_the_reader(fixture: &mut dyn Fixture) -> Outcome {
    let back_end = fixture.back_end();
    let spec = prepare(fixture, &container(1)).await?;
    back_end.machines.start(&spec).await?;
    let (mut agent, _) = greet(&back_end, &spec).await?;
    let process = fixture.process(&[Does::Count(1), Does::Sleep]);
    let begin = back_end.journals.extent(&spec.id).await?.end;
    let grown = async {
        let deadline = Instant::now() + DEADLINE;
        while back_end.journals.extent(&spec.id).await?.end <= begin {
            ensure!(Instant::now() < deadline, "the journal did not grow");
            back_end.journals.grown(&spec.id, begin).await;
        }
        Ok::<(), Failure>(())
    };
    let (grown, reply) = tokio::join!(grown, run(&back_end, &spec, &mut agent, process));
    grown?;
    reply?;
    // What is longer already is told at once, not at the end of a wait.
    let told = Instant::now();
    back_end.journals.grown(&spec.id, begin).await;
    ensure!(told.elapsed() < Duration::from_millis(400), "it took {:?}", told.elapsed());
    Ok(back_end.machines.kill(&spec.id).await?)
}
