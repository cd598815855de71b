//! The folder of a lab, which is swept away even if the lab is killed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::node::demo::folder::Folder;

/// Waits for the end of the lab, which closes its stdin, then removes the folder: programs that end at the same time may
/// still write into it, so it tries for a while. If the lab was killed and so said nothing before, a program that had
/// just been started may even make the folder anew: it is removed again for three seconds.
const SWEEP: &str = "trap '' INT TERM HUP; said=$(cat); n=0; \
    until { rm -rf -- \"$1\" 2>/dev/null && { [ -n \"$said\" ] || [ $n -ge 30 ]; }; } || [ $n -ge 100 ]; \
    do n=$((n+1)); sleep 0.1; done";

/// A folder, and the process that watches over it.
#[derive(Debug)]
pub struct SweptFolder {
    folder: Folder,
    broom: Child,
}

impl SweptFolder {
    /// A new folder among the system's temporary files.
    ///
    /// # Errors
    ///
    /// The system refuses a folder or a process.
    pub fn new() -> anyhow::Result<Self> {
        // The broom comes first: a lab that is killed the moment after leaves no folder either.
        let path = Folder::place("lab")?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SWEEP, "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // What ends the lab shall not end it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut broom = command.spawn().context("can't start `sh`")?;
        match Folder::at(path, false) {
            Ok(folder) => Ok(Self { folder, broom }),
            Err(error) => {
                // What is there, if anything, is not ours.
                let _ = broom.kill().and_then(|()| broom.wait());
                Err(error)
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets it stay: nothing sweeps it any more.
    pub fn keep(&mut self) {
        self.folder.keep();
        let _ = self.broom.kill();
    }
}

impl Drop for SweptFolder {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.broom.stdin.take() {
            let _ = stdin.write_all(b"ended\n");
        }
        let _ = self.broom.wait();
    }
}
