//! A program under a pseudo-terminal, as a person has it.

use anyhow::{Context as _, Result, bail};
use nix::pty::{OpenptyResult, Winsize, openpty};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Guests are emulated here.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    pub fn spawn(mut command: Command, rows: u16, columns: u16) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).context("openpty")?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        // SAFETY: between fork and exec only system calls are made, with plain numbers.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().context("under a terminal")?;
        drop(command);
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut input, shown) = (master.try_clone()?, Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error once nobody has the other side.
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                let piece = buffer.get(..count).unwrap_or_default();
                shown.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(piece);
            }
        });
        Ok(Self { master, child, screen, reader: Some(reader) })
    }

    /// All that was shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    pub fn type_in(&mut self, text: &str) -> Result<()> {
        self.master.write_all(text.as_bytes()).context("type")
    }

    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the structure that this request reads.
        match unsafe { nix::libc::ioctl(self.master.as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()).context("resize"),
        }
    }

    /// Waits until the screen has that; an end without it is an error.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        let over = || self.reader.as_ref().is_none_or(JoinHandle::is_finished);
        let shown = || {
            let over = over();
            match self.screen().contains(text) {
                true => Some(true),
                false => over.then_some(false),
            }
        };
        match crate::wait_for(&format!("`{text}` is shown"), PATIENCE, shown) {
            Ok(true) => Ok(()),
            Ok(false) => bail!("it ended without `{text}`; the screen: {:?}", self.screen()),
            Err(late) => Err(late.context(format!("the screen: {:?}", self.screen()))),
        }
    }

    /// Waits for its end; gives what was shown, too.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let child = &mut self.child;
        let ended = crate::wait_for("the program under a terminal ends", PATIENCE, || {
            child.try_wait().ok().flatten()
        });
        let status = match ended {
            Ok(status) => status,
            Err(error) => bail!("{error:#}; the screen: {:?}", self.screen()),
        };
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok((status, self.screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
