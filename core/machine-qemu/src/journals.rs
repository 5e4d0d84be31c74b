//! Journals as sparse files that QEMU appends to and holes are punched into.
//!
//! ```text
//!   DATA/journals/<container id>     offset in the file = offset in the journal
//!   ░░░░░░░░ released: a hole ░░░░░░░│▓▓▓▓▓ kept ▓▓▓▓▓│
//!   0                              start             end
//! ```
//!
//! What was released is not written down anywhere: the first data of the file is where the journal starts, also after
//! a crash. Never truncated, so QEMU's offset stays right while it writes.

use crate::machines::QemuMachines;
use crate::shared::Shared;
use async_trait::async_trait;
use bulkhead_machine::{Extent, JournalChunk, Journals, MachineError};
use bulkhead_model::ContainerId;
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::Whence;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Holes are made of whole blocks.
const BLOCK_BYTES: u64 = 4096;
/// Most that one read returns.
const READ_BYTES_MAX: usize = 1 << 20;
/// `grown` returns after this in any case.
const GROWN_DEADLINE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct QemuJournals {
    shared: Arc<Shared>,
    machines: QemuMachines,
    waiting: Arc<Waiting>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Who waits for which journal.
type Waiting = Mutex<HashMap<String, Weak<Notify>>>;

impl Drop for QemuJournals {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl QemuJournals {
    pub(crate) fn open(shared: Arc<Shared>, machines: QemuMachines) -> io::Result<Self> {
        // One watch on the folder serves all journals: a host has few inotify instances to give.
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(&shared.data_dir.join("journals"), AddWatchFlags::IN_MODIFY)?;
        // SAFETY: it owns its descriptor, which stays open and the same as long as it lives.
        let inotify = unsafe { AsyncFd::register(Fd(inotify)) }?;
        let (waiting, stop, tasks) =
            (Arc::<Waiting>::default(), CancellationToken::new(), TaskTracker::new());
        let listen = listen(inotify, waiting.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(listen));
        Ok(Self { shared, machines, waiting, tasks, stop })
    }

    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn blocking<T: Send + 'static>(
        &self,
        id: &ContainerId,
        doing: &'static str,
        work: impl FnOnce(Option<File>) -> io::Result<T> + Send + 'static,
    ) -> Result<T, MachineError> {
        let path = self.shared.journal_path(id);
        let done =
            tokio::task::spawn_blocking(move || match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => work(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => work(None),
                Err(error) => Err(error),
            })
            .await;
        done.map_err(io::Error::other).flatten().map_err(MachineError::io(doing))
    }

    fn notify_of(&self, id: &ContainerId) -> Arc<Notify> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, notify| notify.strong_count() > 0);
        if let Some(notify) = waiting.get(id.as_str()).and_then(Weak::upgrade) {
            return notify;
        }
        let notify = Arc::new(Notify::new());
        waiting.insert(id.as_str().into(), Arc::downgrade(&notify));
        notify
    }

    /// A guest that goes around its agent could fill the datastore: beyond twice its cap, its machine is ended.
    fn enforce_cap(&self, id: &ContainerId, allocated: u64) {
        let cap = self.machines.journal_bytes_max(id);
        if cap.is_some_and(|cap| allocated > cap.saturating_mul(2).saturating_add(BLOCK_BYTES)) {
            tracing::warn!(container.id = %id, bytes = allocated, "a guest writes past the cap of its journal");
            self.machines.end(id, "the guest wrote past the cap of its journal");
        }
    }
}

/// Nix's inotify gives its descriptor by reference only.
struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

async fn listen(inotify: AsyncFd<Fd>, waiting: Arc<Waiting>) {
    loop {
        let Ok(mut ready) = inotify.readable().await else { return };
        let events = match inotify.get_ref().0.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(error) => {
                // Waiters then wake by their deadline.
                tracing::error!(%error, "journals are not watched");
                return;
            }
        };
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match event.name {
                Some(name) => name
                    .to_str()
                    .and_then(|name| waiting.get(name))
                    .and_then(Weak::upgrade)
                    .iter()
                    .for_each(|one| one.notify_waiters()),
                // The queue overflowed: anything may have changed.
                None => waiting.values().filter_map(Weak::upgrade).for_each(|one| one.notify_waiters()),
            }
        }
    }
}

/// The first data and the end.
fn extent(file: &File) -> io::Result<Extent> {
    let end = file.metadata()?.len();
    match nix::unistd::lseek(file, 0, Whence::SeekData) {
        Ok(start) => Ok(Extent { start: u64::try_from(start).map_err(io::Error::other)?, end }),
        // Nothing but a hole.
        Err(Errno::ENXIO) => Ok(Extent { start: end, end }),
        Err(errno) => Err(errno.into()),
    }
}

#[async_trait]
impl Journals for QemuJournals {
    async fn extent(&self, id: &ContainerId) -> Result<Extent, MachineError> {
        self.blocking(id, "measuring the journal", |file| file.as_ref().map_or(Ok(Extent::default()), extent))
            .await
    }

    async fn read(&self, id: &ContainerId, offset: u64, max: usize) -> Result<JournalChunk, MachineError> {
        let (chunk, allocated) = self
            .blocking(id, "reading the journal", move |file| {
                let Some(file) = file else { return Ok((JournalChunk { offset, data: Bytes::new() }, 0)) };
                let Extent { start, end } = extent(&file)?;
                let offset = offset.max(start);
                let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
                let mut data = vec![0; max.min(READ_BYTES_MAX).min(left)];
                file.read_exact_at(&mut data, offset)?;
                Ok((JournalChunk { offset, data: data.into() }, file.metadata()?.blocks() * 512))
            })
            .await?;
        self.enforce_cap(id, allocated);
        Ok(chunk)
    }

    async fn release(&self, id: &ContainerId, offset: u64) -> Result<(), MachineError> {
        self.blocking(id, "releasing the journal", move |file| {
            let Some(file) = file else { return Ok(()) };
            let Extent { start, end } = extent(&file)?;
            let until = offset.min(end) / BLOCK_BYTES * BLOCK_BYTES;
            if until <= start {
                return Ok(());
            }
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let until = i64::try_from(until).map_err(io::Error::other)?;
            nix::fcntl::fallocate(&file, flags, 0, until).map_err(io::Error::from)
        })
        .await
    }

    async fn grown(&self, id: &ContainerId, beyond: u64) {
        let notify = self.notify_of(id);
        let deadline = tokio::time::Instant::now() + GROWN_DEADLINE;
        loop {
            let mut written = std::pin::pin!(notify.notified());
            // Listens from here on, so nothing written after the look is missed.
            written.as_mut().enable();
            let longer = fs::metadata(self.shared.journal_path(id)).is_ok_and(|found| found.len() > beyond);
            if longer || tokio::time::timeout_at(deadline, written).await.is_err() {
                return;
            }
        }
    }

    async fn delete(&self, id: &ContainerId) -> Result<(), MachineError> {
        let path = self.shared.journal_path(id);
        self.blocking(id, "removing the journal", move |_| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}
