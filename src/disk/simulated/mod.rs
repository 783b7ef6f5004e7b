//! A disk in memory that forgets, tears, fills up and fails, repeatably from a seed.
//!
//! Promises what POSIX and the disks we know promise, and not a bit more: unsynced bytes and names survive a
//! power cut by chance, sector by sector; a failed sync loses bytes that can still be read until the cache is dropped;
//! a failed write leaves any part of it behind. Used by the tests of everything that stores, in one thread to be
//! repeatable. How fast a disk is, is none of its business.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Disk, File};

mod image;
mod names;
mod random;
#[cfg(test)]
mod tests;

use image::Image;
use names::{Inode, Names};
use random::Random;

/// Kinds of operations that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading bytes.
    Read,
    /// Writing bytes or changing a length.
    Write,
    /// Syncing a file or a directory.
    Sync,
    /// Creating, linking, renaming, removing.
    Name,
}

/// A handle to the simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct Simulated(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    syncs_resumed: Condvar,
}

struct State {
    random: Random,
    names: Names,
    images: BTreeMap<Inode, Image>,
    next_inode: Inode,
    /// Space for everything, in bytes.
    capacity_bytes: usize,
    /// What fails next: after so many more such operations, with this error, from then on or once.
    fault: Option<Fault>,
    counted: [u64; 4],
    lies: bool,
    keeps_caches: bool,
    paused: bool,
    off: bool,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    operation: Operation,
    countdown: u64,
    kind: io::ErrorKind,
    lasting: bool,
}

impl Simulated {
    /// An empty disk with the directories `/` and "" (the current one).
    pub fn new(seed: u64) -> Self {
        let mut names = Names::default();
        names.make_dirs(Path::new("/"));
        names.make_dirs(Path::new(""));
        Self::with(Random::new(seed), names, BTreeMap::new(), 0)
    }

    fn with(random: Random, names: Names, images: BTreeMap<Inode, Image>, next_inode: Inode) -> Self {
        let state = State {
            random,
            names,
            images,
            next_inode,
            capacity_bytes: usize::MAX,
            fault: None,
            counted: [0; 4],
            lies: false,
            keeps_caches: false,
            paused: false,
            off: false,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), syncs_resumed: Condvar::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }

    /// Cuts the power. Gives the disk as the next start finds it; every operation through older handles fails.
    pub fn crash(&self) -> Self {
        self.turn_off(
            |state, percent| state.names.after_power_cut(&mut state.random, percent),
            |image, random, percent| image.after_power_cut(random, percent),
        )
    }

    /// Ends the process but not the machine: what was written stays, dirty or forgotten as it was.
    pub fn kill(&self) -> Self {
        self.turn_off(|state, _| state.names.clone(), |image, _, _| image.clone())
    }

    fn turn_off(
        &self,
        names: impl FnOnce(&mut State, usize) -> Names,
        image: impl Fn(&Image, &mut Random, usize) -> Image,
    ) -> Self {
        let mut state = self.state();
        // Both ends matter as much as the middle: nothing got through, or everything did.
        let percent = [0, 10, 50, 90, 100][state.random.below(5)];
        let names = names(&mut state, percent);
        state.off = true;
        state.paused = false;
        self.0.syncs_resumed.notify_all();
        let images = std::mem::take(&mut state.images);
        let linked = names.inodes();
        let left = images.iter().filter(|(inode, _)| linked.contains(inode));
        let images = left.map(|(inode, old)| (*inode, image(old, &mut state.random, percent))).collect();
        let random = Random::new(state.random.next());
        Self::with(random, names, images, state.next_inode)
    }

    /// Bounds the space of all files together; writes past it fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: usize) {
        self.state().capacity_bytes = bytes;
    }

    /// Space that is taken, in bytes.
    pub fn used_bytes(&self) -> usize {
        self.state().used_bytes()
    }

    /// Makes the `nth` such operation from now on fail, once; 1 is the next one.
    pub fn fail(&self, operation: Operation, nth: u64, kind: io::ErrorKind) {
        self.state().fault = Some(Fault { operation, countdown: nth, kind, lasting: false });
    }

    /// Makes every such operation fail from now on, until [`heal`](Self::heal).
    pub fn fail_always(&self, operation: Operation, kind: io::ErrorKind) {
        self.state().fault = Some(Fault { operation, countdown: 1, kind, lasting: true });
    }

    /// Takes back [`fail`](Self::fail) and [`fail_always`](Self::fail_always).
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// How many operations of this kind were tried so far.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counted[operation as usize]
    }

    /// From now on syncs of files succeed and do nothing: the control that must lose data.
    pub fn lie_about_syncs(&self) {
        self.state().lies = true;
    }

    /// From now on dropping the cache does nothing: the control that must read what is not there.
    pub fn keep_caches(&self) {
        self.state().keeps_caches = true;
    }

    /// From now on syncs of files wait until [`resume_syncs`](Self::resume_syncs).
    pub fn pause_syncs(&self) {
        self.state().paused = true;
    }

    /// Lets waiting syncs go on.
    pub fn resume_syncs(&self) {
        self.state().paused = false;
        self.0.syncs_resumed.notify_all();
    }

    /// Flips bits of one byte of a file, durably: rot.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) {
        let mut state = self.state();
        let inode = state.names.get(path).expect("the file is there");
        state.image(inode).flip(offset, mask);
    }

    /// Makes or replaces a file, durably; its directory must be there. For setting a scene.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.next_inode;
        state.next_inode += 1;
        state.images.insert(inode, Image::durable(bytes));
        state.names.put(path, inode);
    }

    /// The bytes of a file as a reader sees them.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let inode = state.names.get(path)?;
        Ok(state.image(inode).live().to_vec())
    }

    fn file(&self, inode: Inode, writable: bool) -> Box<dyn File> {
        Box::new(SimulatedFile { shared: self.0.clone(), inode, writable })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain data that every method leaves whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn image(&mut self, inode: Inode) -> &mut Image {
        self.images.entry(inode).or_default()
    }

    fn used_bytes(&self) -> usize {
        let linked = self.names.inodes();
        let used =
            |(inode, image): (&Inode, &Image)| if linked.contains(inode) { image.allocated } else { 0 };
        self.images.iter().map(used).sum()
    }

    /// Counts an operation and fails it when its turn has come.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        self.check_power()?;
        self.counted[operation as usize] += 1;
        let Some(fault) = self.fault.as_mut().filter(|fault| fault.operation == operation) else {
            return Ok(());
        };
        fault.countdown -= 1;
        if fault.countdown > 0 {
            return Ok(());
        }
        let kind = fault.kind;
        if fault.lasting {
            fault.countdown = 1;
        } else {
            self.fault = None;
        }
        Err(io::Error::new(kind, "a simulated fault"))
    }

    fn check_power(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the simulated power is off")) } else { Ok(()) }
    }

    fn write(&mut self, inode: Inode, bytes: &[u8], offset: usize) -> io::Result<()> {
        if let Err(error) = self.begin(Operation::Write) {
            let part = self.random.below(bytes.len() + 1);
            if !self.off && part > 0 {
                self.image(inode).write(&bytes[..part], offset);
            }
            return Err(error);
        }
        let allocated = self.image(inode).allocated;
        let grows = (offset + bytes.len()).saturating_sub(allocated);
        if grows > 0 {
            let free = self.capacity_bytes.saturating_sub(self.used_bytes());
            if grows > free {
                let fits = (allocated + free).saturating_sub(offset).min(bytes.len());
                self.image(inode).write(&bytes[..fits], offset);
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.image(inode).write(bytes, offset);
        Ok(())
    }

    fn sync(&mut self, inode: Inode) -> io::Result<()> {
        if let Err(error) = self.begin(Operation::Sync) {
            let mut random = Random::new(self.random.next());
            if !self.off {
                self.image(inode).fail_sync(&mut random);
            }
            return Err(error);
        }
        if !self.lies {
            self.image(inode).sync();
        }
        Ok(())
    }
}

impl Disk for Simulated {
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.begin(Operation::Name)?;
        let inode = state.next_inode;
        state.names.add(path, inode)?;
        state.next_inode += 1;
        state.images.insert(inode, Image::default());
        Ok(self.file(inode, true))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.check_power()?;
        Ok(self.file(state.names.get(path)?, false))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.check_power()?;
        Ok(self.file(state.names.get(path)?, true))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut state = self.state();
        state.begin(Operation::Read)?;
        state.names.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state();
        state.begin(Operation::Read)?;
        Ok(state.names.exists(path))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Name)?;
        state.names.make_dirs(dir);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Name)?;
        state.names.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Name)?;
        state.names.check_free(to)?;
        state.names.rename(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Name)?;
        let inode = state.names.get(original)?;
        state.names.add(link, inode)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Name)?;
        state.names.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Sync)?;
        state.names.sync(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let state = self.state();
        state.check_power()?;
        state.names.check_dir(dir)?;
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()) as u64)
    }
}

struct SimulatedFile {
    shared: Arc<Shared>,
    inode: Inode,
    writable: bool,
}

impl SimulatedFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimulatedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.shared.state();
        state.begin(Operation::Read)?;
        state.image(self.inode).read(bytes, offset as usize)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.shared.state().write(self.inode, bytes, offset as usize)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.shared.state();
        state.check_power()?;
        Ok(state.image(self.inode).live().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.shared.state();
        state.begin(Operation::Write)?;
        state.image(self.inode).set_len(len as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = self.shared.state();
        let resumed = self.shared.syncs_resumed.wait_while(state, |state| state.paused);
        resumed.unwrap_or_else(PoisonError::into_inner).sync(self.inode)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.shared.state();
        state.check_power()?;
        if !state.keeps_caches {
            state.image(self.inode).drop_cache();
        }
        Ok(())
    }
}
