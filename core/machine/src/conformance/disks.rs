//! Disks: layers that images share, writable ones, and volumes.

use super::*;

pub async fn disks_are_made_once_and_deleted_once(fixture: &mut dyn Fixture) -> Outcome {
    let disks = fixture.back_end().disks;
    let id = container(3);
    ensure!(!disks.has_disk(vch(), &id).await?, "there is a disk");
    ensure!(disks.disk_used(vch(), &id).await? == 0, "a disk that is not there takes space");
    disks.create_disk(vch(), &id, DISK_BYTES).await?;
    disks.create_disk(vch(), &id, DISK_BYTES).await?;
    ensure!(disks.has_disk(vch(), &id).await?, "the disk is not there");
    let used = disks.disk_used(vch(), &id).await?;
    ensure!(used < DISK_BYTES, "an empty disk takes {used} bytes");
    let forgotten = disks.forget_vch(vch()).await;
    ensure!(forgotten.is_err(), "a VCH was forgotten that has a disk");
    disks.delete_disk(vch(), &id).await?;
    disks.delete_disk(vch(), &id).await?;
    ensure!(!disks.has_disk(vch(), &id).await?, "the disk was not deleted");
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
    let id = VolumeId(uuid_of(0x33));
    ensure!(disks.volumes(vch()).await?.is_empty(), "there are volumes");
    ensure!(disks.volume_used(vch(), id).await? == 0, "a volume that is not there takes space");
    let grown = disks.grow_volume(vch(), id, DISK_BYTES).await;
    ensure!(matches!(grown, Err(MachineError::NoSuchVolume(_))), "a missing volume grew: {grown:?}");
    disks.create_volume(vch(), id, DISK_BYTES).await?;
    disks.create_volume(vch(), id, DISK_BYTES).await?;
    ensure!(disks.volumes(vch()).await? == [id], "other volumes are there");
    ensure!(disks.volumes(VchId(uuid_of(0x22))).await?.is_empty(), "another VCH has it");
    let used = disks.volume_used(vch(), id).await?;
    ensure!(used < DISK_BYTES / 16, "an empty volume takes {used} bytes");
    disks.grow_volume(vch(), id, 4 * DISK_BYTES).await?;
    disks.grow_volume(vch(), id, 2 * DISK_BYTES).await?;
    let used = disks.volume_used(vch(), id).await?;
    ensure!(used < DISK_BYTES / 16, "a larger empty volume takes {used} bytes");
    ensure!(disks.forget_vch(vch()).await.is_err(), "a VCH was forgotten that has a volume");
    disks.delete_volume(vch(), id).await?;
    disks.delete_volume(vch(), id).await?;
    ensure!(disks.volumes(vch()).await?.is_empty(), "the volume was not deleted");
    Ok(disks.forget_vch(vch()).await?)
}
