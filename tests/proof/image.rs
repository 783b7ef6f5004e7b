//! A small file system in a file, and what is left of it after a power cut.
//!
//! The image is ext4 on a loop device. What a process writes stays in the memory of the inner file system until it is
//! synced or written back; only then it reaches the image. So once the process is dead, a copy of the image *without*
//! unmounting is what a machine would find after losing its power. The proof of that is the control: without syncs
//! acknowledged messages must be missing from the copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Image {
    file: PathBuf,
    device: String,
    mount_point: PathBuf,
}

impl Image {
    /// A new, empty file system.
    pub(crate) fn make(dir: &Path, name: &str, mib: u64) -> Self {
        let file = dir.join(format!("{name}.img"));
        fs::File::create(&file).and_then(|file| file.set_len(mib << 20)).expect("an image");
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", utf8(&file)]);
        Self::mount(file)
    }

    fn mount(file: PathBuf) -> Self {
        let device = run("losetup", &["--find", "--show", utf8(&file)]).trim().to_owned();
        let mount_point = file.with_extension("mnt");
        fs::create_dir_all(&mount_point).expect("a mount point");
        let image = Self { file, device, mount_point };
        run("mount", &[&image.device, utf8(&image.mount_point)]);
        image
    }

    /// Where its files are.
    pub(crate) fn root(&self) -> &Path {
        &self.mount_point
    }

    /// What is left if the power goes now. Nothing may be running on it.
    pub(crate) fn after_power_cut(&self, name: &str) -> Self {
        let copy = self.file.with_file_name(format!("{name}.img"));
        // The kernel writes back on its own: a copy counts only if nothing was written meanwhile.
        loop {
            let before = self.writes();
            run("cp", &["--sparse=always", utf8(&self.file), utf8(&copy)]);
            if before == self.writes() {
                return Self::mount(copy);
            }
        }
    }

    /// Finished and running writes of the device.
    fn writes(&self) -> (String, String) {
        let name = self.device.rsplit('/').next().expect("a device");
        let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).expect("a loop device");
        let mut fields = stat.split_whitespace().map(str::to_owned);
        let mut field = |nth| fields.nth(nth).expect("a kernel since 2.6");
        (field(4), field(3))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Not lazily: what is still used is a bug of the test.
        for (program, argument) in [("umount", utf8(&self.mount_point)), ("losetup", "")] {
            let arguments: &[&str] = if program == "umount" { &[argument] } else { &["-d", &self.device] };
            let done = Command::new(program).args(arguments).status();
            if !done.is_ok_and(|status| status.success()) {
                eprintln!("{program} {arguments:?} failed");
            }
        }
        let _ = fs::remove_file(&self.file);
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; is it installed?"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}; proofs need root");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
