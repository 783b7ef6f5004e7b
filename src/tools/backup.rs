//! `chinwag backup`: a copy of a store, consistent at one record of its log.
//!
//! What is copied: the newest usable manifest and its packs, every segment that is kept, the last one up to its last
//! durable record, the key that signs tokens. The copy is a data directory: it can be verified, exported from, served.
//! A running server makes it itself, because only it can keep its files from being removed meanwhile.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::Error;
use super::ask::{absolute, ask_server};
use super::copy::{Copied, Part, Target};
use super::reader::Reader;
use crate::auth::LocalKey;
use crate::conversation::Operator;
use crate::data_dir::{self, Format};
use crate::disk::{Disk, Real};
use crate::message::{Caller, UserId};
use crate::snapshot::{self, StoreId};
use crate::wal::{self, Lsn, SegmentFile};

/// How long the token is good that a backup asks with: it is looked at once, at the beginning.
const TOKEN_TTL: Duration = Duration::from_secs(60);

/// Backs up the store in `root` to `to` while `operator`'s conversations run on it. A checkpoint comes first.
///
/// Sends wait for nothing but the disk that both use; checkpoints wait while files are linked.
///
/// # Errors
/// When `to` is not empty or lies inside `root`, or something cannot be read or written; then `to` holds no store.
pub fn backup_running(root: &Path, format: &Format, operator: &Operator, to: &Path) -> Result<Copied, Error> {
    refuse_inside(root, to)?;
    let disk = Real;
    let mut target = Target::begin(&disk, to)?;
    // Without one the log has more to say, and the copy is as good.
    if let Err(why) = operator.checkpoint(false) {
        tracing::warn!(%why, "the backup goes on without a checkpoint");
    }
    let secured = operator.hold_still(|segments, last| {
        let parts = running_parts(&disk, root, &format.store, segments, last)?;
        Ok::<_, Error>((target.secure(&parts, &root.join("tmp"))?, last))
    })?;
    let (waiting, last) = secured?;
    target.settle(waiting)?;
    target.copy_key(root)?;
    target.finish(&Format { started: true, ..format.clone() }, last.0)
}

/// Backs up the store in `dir`, which no server uses.
///
/// # Errors
/// As [`backup_running`], and when a server would refuse to start on `dir`.
pub fn backup_stopped(dir: &Path, to: &Path) -> Result<Copied, Error> {
    refuse_inside(dir, to)?;
    let reader = Reader::open(Arc::new(Real), dir)?;
    let log = reader.read_log(&mut |_, _, _| {})?;
    let manifest = reader.images.first().map(|image| &image.manifest);
    let mut parts = manifest.map_or(Vec::new(), |manifest| parts_of(&reader.data.snap_dir(), manifest));
    let (last_lsn, segments) = (log.last_lsn, log.segments.clone());
    reader.refuse_damage(log)?;
    let last = segments.len().saturating_sub(1);
    for (number, segment) in segments.into_iter().enumerate() {
        let bytes = (number == last).then_some(segment.end);
        parts.push(Part { from: segment.file.path, dir: "wal", bytes });
    }
    let mut target = Target::begin(&*reader.disk, to)?;
    // A reader may not write into the store: what cannot be linked is copied while the lock is held.
    let waiting = target.secure(&parts, &to.join("tmp"))?;
    target.settle(waiting)?;
    target.copy_key(dir)?;
    target.finish(reader.data.format(), last_lsn.0)
}

/// The parts of a store whose log ends, for this copy, with record `last`.
fn running_parts(
    disk: &dyn Disk,
    root: &Path,
    store: &StoreId,
    segments: &[SegmentFile],
    last: Lsn,
) -> Result<Vec<Part>, Error> {
    let mut parts = snapshot_parts(disk, root, store)?;
    let current = segments.iter().rposition(|segment| segment.first_lsn <= last).unwrap_or(0);
    for (number, segment) in segments.iter().enumerate().take(current + 1) {
        let bytes = match number == current {
            true => Some(wal::end_of(disk, segment, *store, last)?),
            false => None,
        };
        parts.push(Part { from: segment.path.clone(), dir: "wal", bytes });
    }
    Ok(parts)
}

/// The newest manifest that can be read, and the packs that it names.
fn snapshot_parts(disk: &dyn Disk, root: &Path, store: &StoreId) -> Result<Vec<Part>, Error> {
    let snap_dir = root.join("snap");
    let mut first_error = None;
    for number in snapshot::manifests(disk, &snap_dir)? {
        match snapshot::read_manifest(disk, &snap_dir, store, number) {
            Ok(manifest) => return Ok(parts_of(&snap_dir, &manifest)),
            Err(why) => first_error = first_error.or(Some(why)),
        }
    }
    first_error.map_or(Ok(Vec::new()), |why| Err(why.into()))
}

/// A manifest and its packs.
pub(super) fn parts_of(snap_dir: &Path, manifest: &snapshot::Manifest) -> Vec<Part> {
    let packs = manifest.packs.iter().map(|info| snapshot::pack_path(snap_dir, info.number));
    let files = packs.chain([snapshot::manifest_path(snap_dir, manifest.number)]);
    files.map(|from| Part { from, dir: "snap", bytes: None }).collect()
}

/// A copy inside the store would be taken for part of it, and vanish with it.
fn refuse_inside(root: &Path, to: &Path) -> Result<(), Error> {
    let resolve = |path: &Path| -> Result<PathBuf, Error> {
        let path = std::path::absolute(path).map_err(Error::io("find", path))?;
        let existing = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
        let (above, real) = existing.unwrap_or((&path, path.clone()));
        Ok(real.join(path.strip_prefix(above).unwrap_or(Path::new(""))))
    };
    if resolve(to)?.starts_with(resolve(root)?) {
        let why = format!("lies inside {}; name a directory elsewhere", root.display());
        return Err(Error::CannotUse { path: to.to_path_buf(), why });
    }
    Ok(())
}

/// Where a backup is taken from and put to.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The directory to make.
    pub to: &'a Path,
    /// The data directory.
    pub data: &'a Path,
    /// The operations address of the server that uses it.
    pub ops: SocketAddr,
    /// Whether to ask that server without looking whether one uses the directory.
    pub only_ask: bool,
    /// An admin token; `None`: one of the data directory's key.
    pub token: Option<&'a str>,
}

/// Backs up a store whether a server uses it or not.
///
/// # Errors
/// As [`backup_stopped`]; when a server uses it, in its words.
pub fn backup(order: &Order<'_>) -> Result<Copied, Error> {
    if !order.only_ask {
        match backup_stopped(order.data, order.to) {
            Err(Error::DataDir(data_dir::Error::InUse { .. })) => {}
            done => return done,
        }
    }
    let token = match order.token {
        Some(token) => token.to_owned(),
        None => own_token(order.data)?,
    };
    let answer = ask_server(order.ops, &token, "/im.admin/backup", &json!({ "to": absolute(order.to)? }))?;
    let number = |field: &str| answer.get(field).and_then(Value::as_u64).unwrap_or(0);
    let (files, linked) = (number("files"), number("linked"));
    Ok(Copied { files, linked, bytes: number("bytes"), last_lsn: number("last_lsn") })
}

/// Who can read the key may ask for everything anyway.
fn own_token(data: &Path) -> Result<String, Error> {
    let key = LocalKey::open(data).map_err(|why| Error::Refused(format!("{why}; or give a --token")))?;
    let caller = Caller { user: UserId::parse("chinwag-backup").expect("a valid id"), admin: true };
    let now_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    Ok(key.sign(&caller, now_s, TOKEN_TTL))
}
