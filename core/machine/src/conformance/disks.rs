//! Disks: layers that images share, writable ones, and volumes.

use super::*;

pub async fn disks_are_made_once_and_deleted_once(fixture: &mut dyn Fixture) -> Outcome {
    let disks = fixture.back_end().disks;
    let id = container(3);
    ensure!(!disks.has_disk(vch(), disk_of(&id)).await?, "there is a disk");
    ensure!(disks.disk_used(vch(), disk_of(&id)).await? == 0, "a disk that is not there takes space");
    disks.create_disk(vch(), disk_of(&id), DISK_BYTES).await?;
    disks.create_disk(vch(), disk_of(&id), DISK_BYTES).await?;
    ensure!(disks.has_disk(vch(), disk_of(&id)).await?, "the disk is not there");
    let used = disks.disk_used(vch(), disk_of(&id)).await?;
    ensure!(used < DISK_BYTES, "an empty disk takes {used} bytes");
    let forgotten = disks.forget_vch(vch()).await;
    ensure!(forgotten.is_err(), "a VCH was forgotten that has a disk");
    disks.delete_disk(vch(), disk_of(&id)).await?;
    disks.delete_disk(vch(), disk_of(&id)).await?;
    ensure!(!disks.has_disk(vch(), disk_of(&id)).await?, "the disk was not deleted");
    disks.forget_vch(vch()).await?;
    Ok(disks.forget_vch(vch()).await?)
}

pub async fn layers_are_whole_or_not_there(fixture: &mut dyn Fixture) -> Outcome {
    let disks = fixture.back_end().disks;
    let (diff_id, contents) = (Digest::of(b"layer"), vec![0xab_u8; 10_000]);
    ensure!(disks.layers(vch()).await?.is_empty(), "there are layers");
    let dropped = disks.stage_layer(vch()).await?;
    dropped.file()?.write_all(&contents)?;
    drop(dropped);
    ensure!(disks.layers(vch()).await?.is_empty(), "a layer that was given up is there");
    disks.forget_vch(vch()).await?;

    for attempt in 1..=2 {
        let staged = disks.stage_layer(vch()).await?;
        staged.file()?.write_all(&contents)?;
        let bytes = staged.commit(&diff_id).await?;
        ensure!(bytes == 10_000, "commit {attempt} says {bytes} bytes");
    }
    ensure!(disks.layer(vch(), &diff_id).await? == Some(10_000), "the layer is not there");
    ensure!(disks.layers(vch()).await? == [diff_id.clone()], "other layers are there");
    ensure!(disks.layer(vch(), &Digest::of(b"other")).await?.is_none(), "another layer is there");
    let other_vch = VchId(uuid_of(0x22));
    ensure!(disks.layer(other_vch, &diff_id).await?.is_none(), "the layer is in another VCH");
    let mut read = Vec::new();
    disks.open_layer(vch(), &diff_id).await?.read_to_end(&mut read)?;
    ensure!(read == contents, "it reads as something else");
    let missing = disks.open_layer(vch(), &Digest::of(b"other")).await;
    ensure!(matches!(missing, Err(MachineError::NoSuchLayer(_))), "a missing layer opens: {missing:?}");
    ensure!(disks.forget_vch(vch()).await.is_err(), "a VCH was forgotten that has a layer");
    disks.delete_layer(vch(), &diff_id).await?;
    disks.delete_layer(vch(), &diff_id).await?;
    ensure!(disks.layer(vch(), &diff_id).await?.is_none(), "the layer was not deleted");
    Ok(disks.forget_vch(vch()).await?)
}

pub async fn volumes_are_made_grow_and_go(fixture: &mut dyn Fixture) -> Outcome {
    let disks = fixture.back_end().disks;
    let at = VolumePlace { id: VolumeId(uuid_of(0x33)), folder: None };
    live_and_die(&*disks, &at).await?;
    Ok(disks.forget_vch(vch()).await?)
}

pub async fn volumes_are_in_folders_that_were_made_ready(fixture: &mut dyn Fixture) -> Outcome {
    let disks = fixture.back_end().disks;
    let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let place = |dir: &tempfile::TempDir, id| VolumePlace {
        id: VolumeId(uuid_of(id)),
        folder: Some(dir.path().to_owned()),
    };
    let at = place(&one, 0x33);
    let away = |done: &Result<(), MachineError>| matches!(done, Err(MachineError::NoFolder { .. }));
    let made = disks.create_volume(vch(), &at, DISK_BYTES).await;
    ensure!(away(&made), "a volume where nothing was made ready: {made:?}");
    disks.leave_folder(vch(), one.path()).await?;
    for dir in [&one, &one, &two] {
        disks.open_folder(vch(), dir.path()).await?;
    }
    live_and_die(&*disks, &at).await?;
    disks.create_volume(vch(), &at, DISK_BYTES).await?;
    disks.create_volume(vch(), &place(&two, 0x44), DISK_BYTES).await?;
    ensure!(disks.volumes(vch(), None).await?.is_empty(), "it is in the data folder");
    ensure!(disks.volumes(vch(), at.folder.as_deref()).await? == [at.id], "the folder has something else");
    ensure!(disks.leave_folder(vch(), one.path()).await.is_err(), "left a folder with a volume in it");
    disks.delete_volume(vch(), &at).await?;
    disks.delete_volume(vch(), &place(&two, 0x44)).await?;
    for dir in [&one, &two, &two] {
        disks.leave_folder(vch(), dir.path()).await?;
    }
    // What cannot be looked at is not taken for gone.
    let deleted = disks.delete_volume(vch(), &at).await;
    ensure!(away(&deleted), "deleted where nothing is: {deleted:?}");
    Ok(())
}

async fn live_and_die(disks: &dyn Disks, at: &VolumePlace) -> Outcome {
    let folder = at.folder.as_deref();
    ensure!(disks.volumes(vch(), folder).await?.is_empty(), "there are volumes");
    ensure!(disks.volume_used(vch(), at).await? == 0, "a volume that is not there takes space");
    let grown = disks.grow_volume(vch(), at, DISK_BYTES).await;
    ensure!(matches!(grown, Err(MachineError::NoSuchVolume(_))), "a missing volume grew: {grown:?}");
    disks.create_volume(vch(), at, DISK_BYTES).await?;
    disks.create_volume(vch(), at, DISK_BYTES).await?;
    ensure!(disks.volumes(vch(), folder).await? == [at.id], "other volumes are there");
    ensure!(disks.volumes(VchId(uuid_of(0x22)), folder).await?.is_empty(), "another VCH has it");
    let used = disks.volume_used(vch(), at).await?;
    ensure!(used < DISK_BYTES / 16, "an empty volume takes {used} bytes");
    disks.grow_volume(vch(), at, 4 * DISK_BYTES).await?;
    disks.grow_volume(vch(), at, 2 * DISK_BYTES).await?;
    let used = disks.volume_used(vch(), at).await?;
    ensure!(used < DISK_BYTES / 16, "a larger empty volume takes {used} bytes");
    if folder.is_none() {
        ensure!(disks.forget_vch(vch()).await.is_err(), "a VCH was forgotten that has a volume");
    }
    disks.delete_volume(vch(), at).await?;
    disks.delete_volume(vch(), at).await?;
    ensure!(disks.volumes(vch(), folder).await?.is_empty(), "the volume was not deleted");
    Ok(())
}
