//! The directories of the simulated disk: names as they are seen, names as they are stable, and the changes
//! in between, in order.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use slab::Slab;

use super::Crash;
use super::inode::{Inode, InodeRef};
use crate::disk::DirEntry;

#[derive(Clone)]
enum Node {
    /// A directory by its id.
    Dir(usize),
    File(InodeRef),
}

#[derive(Default, Clone)]
struct Directory {
    current: BTreeMap<String, Node>,
    stable: BTreeMap<String, Node>,
}

/// One change of names: sets an entry, unsets one, or (a rename) both. A file's rename between two directories is two
/// changes of the same number.
struct Pending {
    number: u64,
    unset: Option<Entry>,
    set: Option<Entry>,
}

/// A name in a directory, and what it stands for.
type Entry = (usize, String, Node);

/// Directories live as long as the world, also when they are unlinked: their number stays small.
pub(super) struct Tree {
    directories: Slab<Directory>,
    pending: Vec<Pending>,
    changes: u64,
}

const ROOT: usize = 0;

impl Default for Tree {
    fn default() -> Tree {
        let mut directories = Slab::new();
        directories.insert(Directory::default());
        Tree { directories, pending: Vec::new(), changes: 0 }
    }
}

impl Tree {
    /// These files, by absolute path, all stable.
    pub(super) fn of_files(files: &BTreeMap<PathBuf, Bytes>) -> Tree {
        let mut tree = Tree::default();
        for (path, content) in files {
            let made = tree.create_dir_all(path.parent().unwrap_or(path));
            let made = made.and_then(|()| tree.create(path, Inode::stable_ref(content)));
            made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        for pending in std::mem::take(&mut tree.pending) {
            tree.settle(pending);
        }
        tree
    }

    /// All files as reads see them, by absolute path.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Bytes> {
        let mut files = BTreeMap::new();
        let mut left = vec![(PathBuf::from("/"), ROOT)];
        while let Some((dir, id)) = left.pop() {
            for (name, node) in &self.directories[id].current {
                match node {
                    Node::Dir(next) => left.push((dir.join(name), *next)),
                    Node::File(inode) => {
                        let inode = inode.borrow();
                        let content = inode.read(0, inode.size() as usize);
                        files.insert(dir.join(name), Bytes::copy_from_slice(&content));
                    }
                }
            }
        }
        files
    }

    /// Changes made so far: what a sync called now covers.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn directory_id(&self, path: &Path) -> io::Result<usize> {
        let mut id = ROOT;
        for name in names(path) {
            match self.directories[id].current.get(name) {
                Some(Node::Dir(next)) => id = *next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok(id)
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let Some((dir, name)) = split(path) else { return Ok(Node::Dir(ROOT)) };
        let id = self.directory_id(dir)?;
        self.directories[id].current.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<InodeRef> {
        match self.node(path)? {
            Node::File(inode) => Ok(inode),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.node(path).is_ok()
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let directory = &self.directories[self.directory_id(dir)?];
        let entry = |(name, node): (&String, &Node)| match node {
            Node::Dir(_) => DirEntry { name: name.clone(), len: 0, is_dir: true },
            Node::File(inode) => DirEntry { name: name.clone(), len: inode.borrow().size(), is_dir: false },
        };
        Ok(directory.current.iter().map(entry).collect())
    }

    /// Bytes of all files, each once for each of its names.
    pub(super) fn used_bytes(&self) -> u64 {
        let (mut bytes, mut seen) = (0, vec![ROOT]);
        while let Some(id) = seen.pop() {
            for node in self.directories[id].current.values() {
                match node {
                    Node::Dir(next) => seen.push(*next),
                    Node::File(inode) => bytes += inode.borrow().size(),
                }
            }
        }
        bytes
    }

    pub(super) fn create(&mut self, path: &Path, inode: InodeRef) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        if self.directories[dir].current.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(None, Some((dir, name, Node::File(inode))));
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut id = ROOT;
        for name in names(path) {
            id = match self.directories[id].current.get(name) {
                Some(Node::Dir(next)) => *next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let new = self.directories.insert(Directory::default());
                    self.change(None, Some((id, name.to_owned(), Node::Dir(new))));
                    new
                }
            };
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.node(from)?;
        let (source, target) = (self.parent(from)?, self.parent(to)?);
        if let Some(Node::Dir(_)) = self.directories[target.0].current.get(&target.1) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(Some(source), Some((target.0, target.1, node)));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let (dir, name) = self.parent(path)?;
        self.change(Some((dir, name)), None);
        Ok(())
    }

    /// Removes one leaf of the directory, and the directory itself when it is empty; true when it is gone.
    pub(super) fn remove_one_under(&mut self, path: &Path) -> io::Result<bool> {
        let (mut id, mut entry) = (self.directory_id(path)?, self.parent(path)?);
        let top = id;
        loop {
            match self.directories[id].current.iter().next() {
                Some((name, Node::Dir(next))) => {
                    entry = (id, name.clone());
                    id = *next;
                }
                Some((name, Node::File(_))) => {
                    self.change(Some((id, name.clone())), None);
                    return Ok(false);
                }
                None => {
                    self.change(Some(entry), None);
                    return Ok(id == top);
                }
            }
        }
    }

    /// Makes stable the changes of a directory up to change number `covered`.
    pub(super) fn sync(&mut self, id: usize, covered: u64) {
        let touches = |pending: &Pending| {
            pending.set.as_ref().is_some_and(|set| set.0 == id)
                || pending.unset.as_ref().is_some_and(|unset| unset.0 == id)
        };
        let is_synced = |pending: &mut Pending| pending.number <= covered && touches(pending);
        let synced: Vec<Pending> = self.pending.extract_if(.., is_synced).collect();
        for pending in synced {
            self.settle(pending);
        }
    }

    /// What is left of names and files when the world ends.
    pub(super) fn crash(&mut self, crash: Crash, random: &mut dyn FnMut(u64) -> u64) {
        if crash == Crash::PowerLoss {
            // A journaling file system keeps the order of changes; POSIX promises none.
            let ordered = random(2) == 0;
            let pending = std::mem::take(&mut self.pending);
            let kept = random(pending.len() as u64 + 1) as usize;
            let last = kept.checked_sub(1).map_or(0, |last| pending[last].number);
            for pending in pending {
                if if ordered { pending.number <= last } else { random(2) == 0 } {
                    self.settle(pending);
                }
            }
        }
        let mut seen = vec![ROOT];
        while let Some(id) = seen.pop() {
            let directory = &mut self.directories[id];
            if crash == Crash::PowerLoss {
                directory.current = directory.stable.clone();
            }
            for node in directory.current.values() {
                match node {
                    Node::Dir(next) => seen.push(*next),
                    // A file with two names crashes twice: the second time nothing is left pending.
                    Node::File(inode) => inode.borrow_mut().crash(crash, random),
                }
            }
        }
    }

    fn change(&mut self, unset: Option<(usize, String)>, set: Option<Entry>) {
        let unset = unset.and_then(|(dir, name)| {
            let node = self.directories[dir].current.remove(&name)?;
            Some((dir, name, node))
        });
        if let Some((dir, name, node)) = &set {
            self.directories[*dir].current.insert(name.clone(), node.clone());
        }
        self.changes += 1;
        let number = self.changes;
        match (unset, set) {
            (Some(unset), Some(set)) if unset.0 != set.0 && matches!(set.2, Node::File(_)) => {
                self.pending.push(Pending { number, unset: Some(unset), set: None });
                self.pending.push(Pending { number, unset: None, set: Some(set) });
            }
            (unset, set) => self.pending.push(Pending { number, unset, set }),
        }
    }

    fn settle(&mut self, pending: Pending) {
        if let Some((dir, name, node)) = pending.unset {
            // An entry that another change put there, stable before this one, is another one.
            let stable = &mut self.directories[dir].stable;
            if stable.get(&name).is_some_and(|there| there.is(&node)) {
                stable.remove(&name);
            }
        }
        if let Some((dir, name, node)) = pending.set {
            self.directories[dir].stable.insert(name, node);
        }
    }

    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let (dir, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.directory_id(dir)?, name.to_owned()))
    }
}

impl Node {
    fn is(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Dir(a), Node::Dir(b)) => a == b,
            (Node::File(a), Node::File(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

fn split(path: &Path) -> Option<(&Path, &str)> {
    Some((path.parent()?, path.file_name()?.to_str()?))
}
